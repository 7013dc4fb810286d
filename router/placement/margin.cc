#include "router/placement/margin.h"

#include <algorithm>
#include <cmath>

namespace baton::router {

namespace {

// The edge: from so much of what is accepted upwards.
constexpr double kEdge = 0.85;
// Of those at the edge, until they alone count.
constexpr uint32_t kFew = 32;

}  // namespace

// With a large margin nothing near the target is accepted, and the edge is lower: it must be heard
// of what comes, to become smaller again. Before the first have ended that were accepted there,
// a margin from those further away is better than none.
void Margin::observe(double predicted, double actual, double target) {
  if (!(predicted > (1 - kMost) * target) || !std::isfinite(actual)) return;
  const bool is_at_edge = predicted > kEdge * (1 - share_) * target;
  if (!is_at_edge && at_edge_ == kFew) return;
  if (is_at_edge && at_edge_ < kFew && ++at_edge_ == kFew && seen_ >= kFew) {
    seen_ = 0;  // others are among them; share_ stays until there are enough
  }
  errors_[seen_++ % kSize] = static_cast<float>((actual - predicted) / target);
  if (seen_ >= 32 && seen_ % 16 == 0) refresh();
}

void Margin::refresh() {
  std::array<float, kSize> sorted = errors_;
  const size_t size = std::min<uint64_t>(seen_, kSize);
  const auto at = sorted.begin() + static_cast<long>(kQuantile * static_cast<double>(size - 1));
  std::nth_element(sorted.begin(), at, sorted.begin() + static_cast<long>(size));
  share_ = std::clamp<double>(*at, -kMost, kMost);
}

}  // namespace baton::router
