#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "common/base/clock.h"
#include "router/traces/trace_config.h"

namespace baton::router {

struct PostOutcome {
  enum class Kind { kTaken, kTryAgain, kRefused };
  Kind kind = Kind::kTryAgain;
  std::string why = {};       // if not taken: a sentence
  Duration retry_after = {};  // that the collector asked for, a minute at most
};

// One POST of a serialized ExportTraceServiceRequest, over a connection of its own. What a
// collector refuses with 429, 502, 503 or 504, and what does not reach it, is worth another try;
// the rest is not. A part that was refused is told of in the log. `timeout`: of connecting, writing
// and reading; a name is looked up for as long as the system takes.
boost::asio::awaitable<PostOutcome> post_spans(const OtlpEndpoint& endpoint,
                                               const HttpFields& headers, const std::string& body,
                                               Duration timeout);

}  // namespace baton::router
