#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "common/base/clock.h"
#include "common/base/ids.h"

namespace baton::router {

// Who read how much KV from whom, as decode workers report each hand-over. Pure. Bounded: where
// more pairs than kMost carry something, those that come last are not kept.
class PairTraffic {
 public:
  static constexpr size_t kMost = 4096;
  static constexpr Duration kMemory = seconds(10);  // of the rate

  struct Pair {
    uint64_t bytes = 0, hand_overs = 0;
    // Of transfers what prefill's work did not cover, together.
    double exposed_seconds = 0;
    double rate = 0;  // bytes a second, at `at`
    TimePoint at;

    // It fades by itself: with e^(-t/kMemory).
    double rate_at(TimePoint now) const;
  };
  using Key = std::pair<WorkerId, WorkerId>;  // prefill, decode

  void add(const Key& pair, uint64_t bytes, uint64_t exposed_us, TimePoint now);
  void forget(WorkerId gone);

  const std::map<Key, Pair>& pairs() const { return pairs_; }

 private:
  void make_room(TimePoint now);

  std::map<Key, Pair> pairs_;
  TimePoint next_room_{};
};

}  // namespace baton::router
