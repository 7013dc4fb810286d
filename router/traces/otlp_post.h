#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/net/name_lookup.h"
#include "router/traces/trace_config.h"

namespace boost::asio::ssl {
class context;
}

namespace baton::router {

struct PostOutcome {
  enum class Kind { kTaken, kTryAgain, kRefused };
  Kind kind = Kind::kTryAgain;
  std::string why = {};         // if not taken, or not all of it: a sentence
  uint64_t rejected_spans = 0;  // of what was taken; whose they are the collector does not say
  Duration retry_after = {};    // that the collector asked for, a minute at most
};

// One POST of a serialized ExportTraceServiceRequest, over a connection of its own. What a
// collector refuses with 429, 502, 503 or 504, and what does not reach it, is worth another try;
// the rest is not. `timeout`: of looking the name up, and then of connecting, writing and reading.
// `tls`: of make_otlp_tls() if the endpoint wants it, else not used.
boost::asio::awaitable<PostOutcome> post_spans(const OtlpEndpoint& endpoint,
                                               const HttpFields& headers, const std::string& body,
                                               Duration timeout, const net::NameLookup& lookup,
                                               boost::asio::ssl::context* tls);

}  // namespace baton::router
