#pragma once

#include "common/base/clock.h"

namespace baton::sim {

// A process's own clock: it started at any time, and runs a little fast or slow.
class ProcessClock {
 public:
  ProcessClock() = default;
  ProcessClock(TimePoint begun, Duration offset, double drift)
      : begun_(begun), offset_(offset), rate_(1 + drift) {}

  TimePoint local(TimePoint true_time) const {
    if (true_time == TimePoint::max()) return true_time;
    return begun_ + offset_ + scaled(true_time - begun_, rate_);
  }
  // Not before that moment.
  TimePoint true_time(TimePoint local) const {
    if (local == TimePoint::max()) return local;
    return begun_ + scaled(local - begun_ - offset_, 1 / rate_) + Duration(2);
  }

 private:
  static Duration scaled(Duration d, double by) {
    return Duration(static_cast<int64_t>(static_cast<double>(d.count()) * by));
  }

  TimePoint begun_{};
  Duration offset_{};
  double rate_ = 1;
};

}  // namespace baton::sim
