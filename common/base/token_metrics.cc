#include "common/base/token_metrics.h"

#include <algorithm>
#include <utility>

namespace baton {

void TokenMetrics::add_gap(double seconds) {
  const auto bucket = std::ranges::lower_bound(bounds_, seconds) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += 1;
  sum_ += seconds;
  ++new_gaps_;
}

void TokenMetrics::publish() {
  if (new_tokens_ > 0) tokens_.Increment(static_cast<double>(std::exchange(new_tokens_, 0)));
  if (new_gaps_ == 0) return;
  gaps_.ObserveMultiple(counts_, sum_);
  std::ranges::fill(counts_, 0.0);
  sum_ = 0;
  new_gaps_ = 0;
}

}  // namespace baton
