#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace baton::router {

// How much later than foreseen things come, as a share of the target: what is left below a target
// for admission to be right about. It is below 0 where nearly all come sooner, since what is
// foreseen is rather the worst (estimate.h): then so much more is accepted. Learnt from those at
// the edge of what is accepted, since others say little of it: what was foreseen to be quick can
// only be later. To begin with from all that were foreseen to need more than half of their target.
// It takes at most a part of the room between what an idle worker gives and the target: who refused
// even what is as good as it can be would never learn better. A value; allocates nothing.
class Margin {
 public:
  static constexpr uint32_t kSize = 256;  // the last so many count
  static constexpr double kQuantile = 0.9;
  static constexpr double kMost = 0.5;
  static constexpr double kMostOfRoom = 0.5;

  // Seconds; `target` above 0.
  void observe(double predicted, double actual, double target);
  // In [-kMost, kMost], of the target: the error that kQuantile of them did not exceed; 0 until 32
  // are seen.
  double share() const { return share_; }
  // Seconds: as late as it may well come that is foreseen to take `s`, and on an idle worker
  // `idle`.
  double at_worst(double s, double target, double idle) const {
    const double most = kMostOfRoom * std::max(target - idle, 0.0);
    return std::max(s + std::min(share_ * target, most), idle);
  }

 private:
  void refresh();

  std::array<float, kSize> errors_{};
  uint64_t seen_ = 0;
  uint32_t at_edge_ = 0;  // of them, up to a few
  double share_ = 0;
};

}  // namespace baton::router
