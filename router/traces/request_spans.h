#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "common/base/clock.h"
#include "common/proto/otlp.pb.h"
#include "router/http/request_facts.h"
#include "router/traces/trace_context.h"

// A request that is over, as spans. Pure.
namespace baton::router {

// All that a trace tells of it: nothing of what was said.
struct TracedRequest {
  TraceContext context;
  std::string method, path, request_id;
  std::string reason;  // as the access log has it
  int status = 0;      // HTTP
  TimePoint received, ended;
  std::chrono::system_clock::time_point ended_at;  // `ended` by the wall clock
  RequestFacts facts;
};

// Appends one span for the whole, below it those of its stages:
//
//   POST /v1/completions
//     parse, admission, reserve
//     prefill    prefill_queue, prefill_compute
//     handover   parked, exposed_transfer, decode_queue, first_step, relay
//     decode
//
// A span is as long as was measured. Where no common clock says when one began, the parts of
// prefill stand at its beginning, those of the hand-over at its end. `next_id` never gives 0.
void append_spans(const TracedRequest& request, const std::function<uint64_t()>& next_id,
                  otlp::ScopeSpans& out);

}  // namespace baton::router
