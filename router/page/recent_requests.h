#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "common/base/clock.h"
#include "router/dispatch/request_stages.h"
#include "router/placement/attainment.h"

namespace baton::router {

// A request that is over: figures and names, nothing of what was said.
struct RecentRequest {
  uint64_t number = 0;  // add() gives it, counting from 1
  std::string id;       // its x-request-id
  std::string tenant;   // empty: there are none
  std::string model;
  uint32_t class_index = 0;
  SloResult result{};
  std::string finish;  // "ok", an error's code, or how its client was lost
  TimePoint received, ended;
  uint32_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  Measured measured;
  std::string prefill, decode;
  uint64_t kv_bytes = 0;
  uint32_t retries = 0;
  RequestStages stages;
};

// The last few. Pure; one thread.
class RecentRequests {
 public:
  static constexpr size_t kMost = 48;

  void add(RecentRequest request);
  const std::deque<RecentRequest>& newest_first() const { return requests_; }

 private:
  uint64_t added_ = 0;
  std::deque<RecentRequest> requests_;
};

}  // namespace baton::router
