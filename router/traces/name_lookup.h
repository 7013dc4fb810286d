#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>
#include <functional>
#include <string>
#include <vector>

#include "common/base/clock.h"

namespace baton::router {

struct FoundName {
  std::vector<boost::asio::ip::tcp::endpoint> endpoints;
  boost::system::error_code failed;
};

// Where host:port is. May block for as long as the system takes; called on a thread of its own,
// which may outlive whoever asked: it owns what it uses.
using NameLookup = std::function<FoundName(const std::string& host, const std::string& port)>;
FoundName ask_system(const std::string& host, const std::string& port);

// Waits for the answer, at most so long: then timed_out. Whoever ends sooner, with its io_context,
// waits for nobody: the system cannot be told to stop looking, which is why Asio's own resolver
// makes the end of an io_context wait.
boost::asio::awaitable<FoundName> look_up(NameLookup lookup, std::string host, std::string port,
                                          Duration within);

}  // namespace baton::router
