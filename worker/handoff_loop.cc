#include "worker/handoff_loop.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>

#include "common/base/log.h"

namespace baton::worker {
namespace {

using boost::system::error_code;

// Rounds of progress before other work of this thread has its turn.
constexpr int kRounds = 4;

}  // namespace

HandoffLoop::HandoffLoop(boost::asio::io_context& io, kvtransfer::HandoffDriver& driver)
    : io_(io), driver_(driver), event_(io), timer_(io) {}

HandoffLoop::~HandoffLoop() = default;

status HandoffLoop::start() {
  // A duplicate, because Asio closes what it is given.
  const int fd = dup(driver_.event_fd());
  if (fd < 0) return error(Errc::kIo, std::string("dup of event fd: ") + std::strerror(errno));
  error_code ec;
  event_.assign(fd, ec);
  if (ec) {
    close(fd);
    return error(Errc::kIo, "cannot watch the transport's descriptor: " + ec.message());
  }
  kick();
  return {};
}

void HandoffLoop::kick() {
  if (posted_) return;
  posted_ = true;
  boost::asio::post(io_, [this, alive = std::weak_ptr<void>(alive_)] {
    if (alive.expired()) return;
    posted_ = false;
    run();
  });
}

void HandoffLoop::run() {
  for (int i = 0; i < kRounds; ++i) {
    if (driver_.poll(Clock::now())) continue;
    sleep();
    return;
  }
  kick();
}

void HandoffLoop::sleep() {
  const auto armed = driver_.arm();
  if (!armed) {
    LOG_ERROR("transport cannot sleep: {}", armed.error().message);
    timer_at_ = TimePoint::max();
  } else if (!*armed) {
    return kick();
  } else if (!waiting_) {
    waiting_ = true;
    event_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [this, alive = std::weak_ptr<void>(alive_)](error_code ec) {
                        if (ec || alive.expired()) return;  // being destroyed
                        waiting_ = false;
                        kick();
                      });
  }
  // A transport that cannot be waited for is looked at now and then rather than forgotten.
  const TimePoint at = armed ? driver_.next_deadline() : Clock::now() + milliseconds(10);
  if (at == timer_at_) return;
  timer_at_ = at;
  if (at == TimePoint::max()) {
    timer_.cancel();
    return;
  }
  timer_.expires_at(at);
  timer_.async_wait([this, alive = std::weak_ptr<void>(alive_)](error_code ec) {
    if (ec || alive.expired()) return;
    timer_at_ = TimePoint::max();
    kick();
  });
}

}  // namespace baton::worker
