#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "router/placement/attainment.h"
#include "router/placement/slo_config.h"

namespace baton::router {

// What became of requests, in steps of time: the last ten minutes, for the live page. Pure; one
// thread; its size is fixed.
class LiveHistory {
 public:
  static constexpr Duration kStep = seconds(5);
  static constexpr size_t kSteps = 120;
  static constexpr size_t kMaxReasons = 16;  // further ones count as the last, "other"

  struct Step {
    std::array<std::array<uint32_t, kNumSloResults>, kMaxSloClasses> results{};  // [class][result]
    std::array<uint32_t, kMaxReasons> refused{};                                 // as reasons()
  };

  explicit LiveHistory(TimePoint begun) : begun_(begun), steps_(1) {}

  void ended(uint32_t slo_class, SloResult result, TimePoint now);
  void refused(std::string_view reason, TimePoint now);

  // Up to `now`, oldest first; the last one is under way, since age().
  std::vector<Step> steps(TimePoint now);
  Duration age(TimePoint now) const { return (now - begun_) % kStep; }
  const std::vector<std::string>& reasons() const { return reasons_; }

 private:
  Step& current(TimePoint now);

  TimePoint begun_;
  uint64_t number_ = 0;      // of the step under way
  std::vector<Step> steps_;  // a ring once it has kSteps: step n is at n % kSteps
  std::vector<std::string> reasons_;
};

}  // namespace baton::router
