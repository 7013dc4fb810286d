#include "router/dispatch/pair_traffic.h"

#include <cmath>

namespace baton::router {

double PairTraffic::Pair::rate_at(TimePoint now) const {
  return rate * std::exp(-to_seconds(now - at) / to_seconds(kMemory));
}

void PairTraffic::add(const Key& key, uint64_t bytes, uint64_t exposed_us, TimePoint now) {
  if (pairs_.size() >= kMost && !pairs_.contains(key)) {
    make_room(now);
    if (pairs_.size() >= kMost) return;
  }
  Pair& pair = pairs_[key];
  pair.rate = pair.rate_at(now) + static_cast<double>(bytes) / to_seconds(kMemory);
  pair.at = now;
  pair.bytes += bytes;
  pair.exposed_seconds += static_cast<double>(exposed_us) * 1e-6;
  ++pair.hand_overs;
}

void PairTraffic::forget(WorkerId gone) {
  std::erase_if(pairs_, [&](const auto& pair) {
    return pair.first.first == gone || pair.first.second == gone;
  });
}

// What has been silent for long goes. Looked for once a second at most.
void PairTraffic::make_room(TimePoint now) {
  if (now < next_room_) return;
  next_room_ = now + seconds(1);
  std::erase_if(pairs_, [&](const auto& pair) { return now - pair.second.at > 6 * kMemory; });
}

}  // namespace baton::router
