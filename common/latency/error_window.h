#pragma once

#include <array>
#include <cstdint>

#include "common/base/clock.h"

namespace baton::latency {

// How far predictions were off, lately: a ring of actual / predicted. A value; allocates nothing.
class ErrorWindow {
 public:
  static constexpr uint32_t kSize = 512;

  // Both above 0, else it is ignored.
  void add(Duration predicted, Duration actual);

  uint64_t count() const { return count_; }  // all that were added
  // Of the last kSize: the ratio actual / predicted that a share q of them does not exceed; 1 if
  // there is none. Microseconds; for a scrape.
  double ratio_quantile(double q) const;
  // The same of |actual / predicted − 1|; 0 if there is none.
  double error_quantile(double q) const;

 private:
  uint32_t size() const { return count_ < kSize ? static_cast<uint32_t>(count_) : kSize; }

  std::array<float, kSize> ratios_{};
  uint64_t count_ = 0;
};

}  // namespace baton::latency
