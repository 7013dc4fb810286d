#include "cli/run_loop.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/signal_set.hpp>
#include <cstdint>
#include <cstdlib>

#include "common/base/log.h"

namespace baton::cli {
namespace {

// This thread is woken for microseconds between threads that compute for milliseconds. On one core
// with them it would wait for the end of their slice; one that asks for short slices goes first
// (since Linux 6.12; before that, and where it is not allowed, nothing changes).
void ask_for_short_slices() {
  // As in <linux/sched/types.h>, which does not go with <sched.h>.
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;  // ns
  } attributes{.size = sizeof attributes, .runtime = 100'000};
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

void mask_hangups(int how) {
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  ::pthread_sigmask(how, &hangup, nullptr);
}

void reload_on(boost::asio::signal_set& hangups, const std::function<void()>& reload) {
  hangups.async_wait([&](boost::system::error_code ec, int) {
    if (ec) return;
    reload();
    reload_on(hangups, reload);
  });
}

}  // namespace

void hold_hangups() { mask_hangups(SIG_BLOCK); }

void run_until_drained(boost::asio::io_context& io, const std::function<void()>& ready,
                       const std::function<void(std::function<void()> done)>& drain,
                       const std::function<void()>& reload) {
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code ec, int) {
    if (ec) return;
    LOG_INFO("draining");
    drain([&io] { io.stop(); });
    signals.async_wait([](boost::system::error_code again, int) {
      if (!again) std::_Exit(130);
    });
  });
  boost::asio::signal_set hangups(io);
  if (reload) {
    hangups.add(SIGHUP);
    reload_on(hangups, reload);
    mask_hangups(SIG_UNBLOCK);
  }
  ask_for_short_slices();
  ready();
  io.run();
}

}  // namespace baton::cli
