#pragma once

#include <cstdint>

#include "common/base/clock.h"

namespace baton::router {

// A rate with room for a minute's worth at once: it fills evenly, and what was used leaves it. It
// may be overdrawn, since what a request will use is known only when it is over; then it is waited
// for until that is made up for, so that the mean holds. A value; no clock of its own.
class TokenBucket {
 public:
  // Full. `per_minute`: what comes in, and its size; 0: no bound.
  explicit TokenBucket(uint64_t per_minute, TimePoint now) : size_(per_minute), at_(now) {
    level_ = size();
  }

  // From now on another rate. What is in it stays, as far as there is room; what is owed, too.
  void set_rate(uint64_t per_minute, TimePoint now);
  // Until there is so much (at most its size) in it. Zero: now.
  Duration wait(double amount, TimePoint now) const;
  // Below zero it is overdrawn. A negative amount is given back.
  void take(double amount, TimePoint now);
  double level(TimePoint now) const;

 private:
  double size() const { return static_cast<double>(size_); }

  uint64_t size_;
  double level_ = 0;  // at at_
  TimePoint at_;
};

}  // namespace baton::router
