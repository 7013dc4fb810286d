#include "router/page/live_history.h"

#include <algorithm>
#include <iterator>

namespace baton::router {

void LiveHistory::ended(uint32_t slo_class, SloResult result, TimePoint now) {
  ++current(now).results[slo_class][static_cast<size_t>(result)];
}

void LiveHistory::refused(std::string_view reason, TimePoint now) {
  auto it = std::ranges::find(reasons_, reason);
  if (it == reasons_.end()) {
    if (reasons_.size() < kMaxReasons) {
      reasons_.emplace_back(reasons_.size() + 1 < kMaxReasons ? reason : "other");
    }
    it = std::prev(reasons_.end());
  }
  ++current(now).refused[static_cast<size_t>(it - reasons_.begin())];
}

// Steps in which nothing came are empty ones. After a pause longer than all of them, all are.
LiveHistory::Step& LiveHistory::current(TimePoint now) {
  const auto wanted = static_cast<uint64_t>(std::max(now - begun_, Duration::zero()) / kStep);
  if (wanted > number_ + kSteps) {
    steps_.assign(kSteps, {});
    number_ = wanted;
  }
  while (number_ < wanted) {
    ++number_;
    if (steps_.size() < kSteps) steps_.emplace_back();
    steps_[number_ % kSteps] = {};
  }
  return steps_[number_ % kSteps];
}

std::vector<LiveHistory::Step> LiveHistory::steps(TimePoint now) {
  current(now);
  std::vector<Step> out;
  out.reserve(steps_.size());
  const uint64_t first = number_ + 1 - std::min<uint64_t>(number_ + 1, steps_.size());
  for (uint64_t n = first; n <= number_; ++n) out.push_back(steps_[n % kSteps]);
  return out;
}

}  // namespace baton::router
