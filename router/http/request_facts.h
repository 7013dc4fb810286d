#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "router/dispatch/request_stages.h"

namespace baton::router {

// What is told of a request once it is over: figures and names, nothing of what was said. It is
// also the record of what it used, each token counted once however often it was placed.
struct RequestFacts {
  std::string tenant;   // empty: there are none
  std::string refused;  // by which label of the metrics; empty: it was not

  // Of requests that were given a class; empty: none was.
  std::string slo_class;
  std::string_view slo_result;

  // Of requests that reached a model; empty: none did.
  std::string model;
  std::string finish;  // "ok", an error's code, or how its client was lost
  uint32_t prompt_tokens = 0, output_tokens = 0;
  uint32_t cached_tokens = 0;                              // of the prompt, not computed for it
  std::optional<Duration> ttft, tpot, worst_gap;           // of its worst choice
  std::optional<Duration> predicted_ttft, predicted_tpot;  // when it was placed
  std::string prefill, decode;                             // workers of its last placement
  uint64_t kv_bytes = 0;                                   // handed off
  uint32_t retries = 0, retargets = 0, resumes = 0, preemptions = 0;
  Duration parked{};                    // its KV waited for room
  std::string_view stage;               // where it was cut off
  RequestStages stages;                 // of its first prompt
  std::optional<TimePoint> last_token;  // delivered, of its first prompt
  std::vector<std::string> ignored;     // fields of its body that nobody knows
};

}  // namespace baton::router
