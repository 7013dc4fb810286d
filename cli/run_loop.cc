#include "cli/run_loop.h"

#include <signal.h>

#include <boost/asio/signal_set.hpp>
#include <cstdlib>

#include "common/base/log.h"

namespace baton::cli {

void run_until_drained(boost::asio::io_context& io, const std::function<void()>& ready,
                       const std::function<void(std::function<void()> done)>& drain) {
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code ec, int) {
    if (ec) return;
    LOG_INFO("draining");
    drain([&io] { io.stop(); });
    signals.async_wait([](boost::system::error_code again, int) {
      if (!again) std::_Exit(130);
    });
  });
  ready();
  io.run();
}

}  // namespace baton::cli
