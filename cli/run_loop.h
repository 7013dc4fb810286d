#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>

namespace baton::cli {

// Runs the loop until `drain`'s continuation is called. The first SIGTERM or SIGINT drains, the
// second ends the process at once.
void run_until_drained(boost::asio::io_context& io,
                       const std::function<void(std::function<void()> done)>& drain);

}  // namespace baton::cli
