#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace baton::router {

// How much later than foreseen things come, as a share of the target: what is left below a target
// for admission to be right about. Learnt from those at the edge of what is accepted, since others
// say little of it: what was foreseen to be quick can only be later. To begin with from all that
// were foreseen to need more than half of their target. It takes at most a part of the
// room between what an idle worker gives and the target: who refused even what is as good as it can
// be would never learn better. A value; allocates nothing.
class Margin {
 public:
  static constexpr uint32_t kSize = 512;  // the last so many count
  static constexpr double kQuantile = 0.9;
  static constexpr double kMost = 0.5;
  static constexpr double kMostOfRoom = 0.5;

  // Seconds; `target` above 0.
  void observe(double predicted, double actual, double target);
  // In [0, kMost], of the target: the error that kQuantile of them did not exceed; 0 until 32 are
  // seen.
  double share() const { return share_; }
  // What is left below a target, seconds, where an idle worker takes `idle`.
  double below(double target, double idle) const {
    return std::min(share_ * target, kMostOfRoom * std::max(target - idle, 0.0));
  }

 private:
  void refresh();

  std::array<float, kSize> errors_{};
  uint64_t seen_ = 0;
  uint32_t at_edge_ = 0;  // of them, up to a few
  double share_ = 0;
};

}  // namespace baton::router
