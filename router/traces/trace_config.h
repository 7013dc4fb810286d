#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton::router {

// Where spans go: POST http(s)://host:port<path>, OTLP over HTTP in protobuf.
struct OtlpEndpoint {
  std::string host, port, path;
  bool tls = false;
};
// "http://host:4318": to /v1/traces; with a path, to <path>/v1/traces. "https://host": to port 443
// unless it has another. kInvalidArgument.
result<OtlpEndpoint> parse_otlp_endpoint(std::string_view url);

using HttpFields = std::vector<std::pair<std::string, std::string>>;
// "name: value" lines. kInvalidArgument, without the value, which may be a secret.
result<HttpFields> parse_header_lines(const std::vector<std::string>& lines);

struct TraceConfig {
  OtlpEndpoint endpoint;
  HttpFields headers;       // sent along, as for authentication
  double sample_ratio = 1;  // of requests that bring no traceparent, 0 to 1
  std::string version;      // of this program

  size_t max_waiting = 4096;      // requests
  size_t max_batch = 256;         // requests in one POST
  Duration every = seconds(1);    // at the latest
  Duration timeout = seconds(5);  // of one POST
  Duration first_backoff = milliseconds(500);
  Duration give_up_after = seconds(30);  // of one batch
  Duration last_words = seconds(1);      // how long the end may take
};

}  // namespace baton::router
