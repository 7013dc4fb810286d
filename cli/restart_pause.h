#pragma once

#include <algorithm>

#include "common/base/clock.h"

namespace baton::cli {

// How long to wait before a child that died is started again: longer each time, so that one which
// cannot live costs little, and short again once one has served for a while.
class RestartPause {
 public:
  // `served`: how long the child did before it died.
  Duration after(Duration served) {
    if (served >= kHealthy) next_ = kFirst;
    const Duration pause = next_;
    next_ = std::min<Duration>(next_ * 2, kLongest);
    return pause;
  }

 private:
  static constexpr Duration kFirst = milliseconds(100);
  static constexpr Duration kLongest = seconds(5);
  static constexpr Duration kHealthy = seconds(60);

  Duration next_ = kFirst;
};

}  // namespace baton::cli
