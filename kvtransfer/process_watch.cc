#include "kvtransfer/process_watch.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace baton::kvtransfer {
namespace {

constexpr uint64_t kNoProcess = UINT64_MAX;

bool watch(int epoll, int fd, uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

ProcessWatch::ProcessWatch() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

ProcessWatch::~ProcessWatch() {
  for (const auto& [id, fd] : pidfds_) ::close(fd);
  if (epoll_ >= 0) ::close(epoll_);
}

bool ProcessWatch::add_descriptor(int fd) { return watch(epoll_, fd, kNoProcess); }

bool ProcessWatch::add(uint64_t id, int64_t pid) {
  const auto fd = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
  if (fd < 0) return errno != ESRCH;
  if (watch(epoll_, fd, id)) {
    pidfds_[id] = fd;
  } else {
    ::close(fd);
  }
  return true;
}

void ProcessWatch::remove(uint64_t id) {
  const auto it = pidfds_.find(id);
  if (it == pidfds_.end()) return;
  ::close(it->second);  // which also takes it out of the epoll set
  pidfds_.erase(it);
}

void ProcessWatch::ended(std::vector<uint64_t>& ids) {
  if (pidfds_.empty()) return;
  std::array<epoll_event, 16> events{};
  const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < n; ++i) {
    const uint64_t id = events[static_cast<size_t>(i)].data.u64;
    if (id == kNoProcess) continue;
    ids.push_back(id);
    remove(id);
  }
}

}  // namespace baton::kvtransfer
