#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace boost::asio {
class io_context;
}

namespace baton::net {

// The small HTTP endpoint of a worker: GET on a handful of paths, for probes and Prometheus.
// Not for requests of users (router/ has its own server).
struct HttpReply {
  unsigned status = 200;
  std::string body;
  std::string content_type = "text/plain; version=0.0.4; charset=utf-8";
};
using HttpHandlers = std::map<std::string, std::function<HttpReply()>, std::less<>>;

class HttpEndpoint {
 public:
  virtual ~HttpEndpoint() = default;
  virtual uint16_t port() const = 0;
};

// Serves on `address` ("host:port") from the io_context's thread until destroyed. At most 64
// connections; requests over 8 KiB or slower than 5 s are cut off.
result<std::unique_ptr<HttpEndpoint>> serve_http(boost::asio::io_context& io,
                                                 std::string_view address, HttpHandlers handlers);

}  // namespace baton::net
