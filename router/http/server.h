#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "router/http/access_entry.h"
#include "router/http/exchange.h"

namespace boost::asio {
class io_context;
}

namespace baton::router {

struct HttpOptions {
  std::string address = "127.0.0.1:8000";  // host:port; port 0 picks one
  size_t max_connections = 1024;           // one more gets 503
  size_t max_header_bytes = size_t{16} << 10;
  size_t max_body_bytes = size_t{4} << 20;
  Duration header_timeout = seconds(10);
  Duration body_timeout = seconds(30);
  Duration idle_timeout = seconds(75);           // of a kept connection between requests
  Duration write_timeout = seconds(10);          // without any progress
  size_t max_pending_bytes = size_t{1} << 20;    // of a stream, written by us and not yet taken
  size_t send_buffer_bytes = size_t{256} << 10;  // of the socket; 0: the system's choice
};

struct HttpHandlers {
  // An answer that needs no body: no such path, not authorized. Nothing: go on.
  std::function<std::optional<HttpReply>(const HttpHead&)> gate;
  // Answers now or later, through the exchange.
  std::function<void(std::string body, std::shared_ptr<Exchange> exchange)> handle;
  // A request is over; not called for a GET that got its answer. May be null.
  std::function<void(const AccessEntry&)> log = {};
};

// HTTP/1.1 for the OpenAI API: keep-alive, pipelining (answered in order), chunked bodies,
// Expect: 100-continue, server-sent events. Every wait has a deadline and every buffer a cap. A
// client that goes away while it waits is noticed at once; one that closes only its sending side
// counts as gone too. Runs on the thread of the io_context; all calls are made there.
class HttpServer {
 public:
  // kIo if the address cannot be listened on.
  static result<std::unique_ptr<HttpServer>> start(boost::asio::io_context& io, HttpOptions options,
                                                   HttpHandlers handlers);
  virtual ~HttpServer() = default;  // closes everything; no handler is called afterwards

  virtual uint16_t port() const = 0;
  virtual size_t num_connections() const = 0;
  // Serves on for `delay`, each answer the last of its connection, so that a balancer can turn away
  // before it is refused; then accepts no more, closes what idles, lets answers under way end, and
  // calls `done`. What is left `within` after that is told that the server shuts down, and closed
  // at most a second later.
  virtual void drain(Duration delay, Duration within, std::function<void()> done) = 0;
};

}  // namespace baton::router
