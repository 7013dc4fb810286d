#pragma once

#include <cstdint>

#include "common/base/clock.h"
#include "common/base/mix.h"

namespace baton::sim {

// splitmix64: small, and the same on every machine, so that a seed is a run.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    const uint64_t drawn = mix(state_);
    state_ += kGolden;
    return drawn;
  }
  // In [0, n); n > 0.
  uint64_t pick(uint64_t n) { return next() % n; }
  uint32_t between(uint32_t low, uint32_t high) {  // both included
    return low + static_cast<uint32_t>(pick(high - low + 1));
  }
  bool chance(double p) { return p > 0 && static_cast<double>(next() >> 11) * 0x1p-53 < p; }
  Duration up_to(Duration d) {
    return d <= Duration::zero()
               ? Duration::zero()
               : Duration(static_cast<int64_t>(pick(static_cast<uint64_t>(d.count()) + 1)));
  }
  // A stream of its own: what is drawn from it shifts nothing here.
  Random fork() { return Random(next()); }

 private:
  uint64_t state_;
};

}  // namespace baton::sim
