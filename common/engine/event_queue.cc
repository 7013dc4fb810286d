#include "common/engine/event_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <string>

namespace baton::engine {

result<std::unique_ptr<EventQueue>> EventQueue::create(size_t capacity) {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return error(Errc::kIo, std::string("eventfd: ") + std::strerror(errno));
  return std::unique_ptr<EventQueue>(new EventQueue(fd, capacity));
}

EventQueue::~EventQueue() { close(fd_); }

void EventQueue::push(const EngineEvent& event) {
  const size_t at = written_.load(std::memory_order_relaxed);
  assert(at - read_.load(std::memory_order_acquire) < events_.size());
  events_[at % events_.size()] = event;
  written_.store(at + 1, std::memory_order_release);
  // Cannot fail: the counter is far from its end, and the descriptor is ours.
  [[maybe_unused]] const int ok = eventfd_write(fd_, 1);
  assert(ok == 0);
}

bool EventQueue::take(EngineEvent& event) {
  const size_t at = read_.load(std::memory_order_relaxed);
  if (at == written_.load(std::memory_order_acquire)) return false;
  event = events_[at % events_.size()];
  read_.store(at + 1, std::memory_order_release);
  return true;
}

bool EventQueue::pop(EngineEvent& event) {
  if (take(event)) return true;
  // Empty: quiet the descriptor, then look again, because an event may have come between.
  eventfd_t ignored;
  eventfd_read(fd_, &ignored);
  return take(event);
}

}  // namespace baton::engine
