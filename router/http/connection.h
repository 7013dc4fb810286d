#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>

#include "router/http/server.h"

namespace baton::router {

class Connection;

// What the connections of one server share. Outlives the server while connections wind up.
struct HttpShared {
  HttpOptions options;
  HttpHandlers handlers;
  std::set<Connection*> connections;
  bool draining = false;           // each answer is its connection's last
  bool no_more = false;            // and no further request is waited for
  bool closed = false;             // the server is gone: call no handler
  std::function<void()> on_fewer;  // a connection ended
  uint64_t next_request = 1;
  std::string request_prefix;  // of ids that this server makes
};

// One client. Owns itself while it runs.
class Connection {
 public:
  virtual ~Connection() = default;
  // Its deadline has passed: gives up what it waits for. Called a few times a second.
  virtual void check_deadline(TimePoint now) = 0;
  // No request is under way: closes; else closes once it is answered.
  virtual void drain() = 0;
  // Fails the request under way, if there is one.
  virtual void abort(const ApiError& why) = 0;
  virtual void close() = 0;
};

void start_connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpShared> shared);

}  // namespace baton::router
