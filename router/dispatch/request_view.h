#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"

// What is in flight, for whoever looks: copies, so that they may be kept.
namespace baton::router {

// A part of a request that one placement serves.
struct LegView {
  RequestId id;  // as workers' logs call it
  Generation generation;
  std::string_view stage;       // stage_of()
  std::string prefill, decode;  // workers' names; empty: none has it
  uint32_t first_choice = 0, choices = 1;
};

struct RequestView {
  static constexpr size_t kMaxLegs = 8;

  std::string trace;   // its x-request-id; several prompts of one request share it
  std::string tenant;  // empty: there are none
  std::string model;
  uint32_t class_index = 0;
  TimePoint received, deadline;
  uint32_t prompt_tokens = 0, max_tokens = 0, choices = 1;
  std::optional<uint32_t> cached_tokens;  // nothing: the prompt is not computed yet
  uint64_t output_tokens = 0;             // delivered, of all choices
  uint32_t retries = 0, resumes = 0, preemptions = 0;
  size_t num_legs = 0;
  std::vector<LegView> legs = {};  // the first kMaxLegs
};

}  // namespace baton::router
