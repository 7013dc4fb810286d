#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>

namespace baton {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Duration = Clock::duration;

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
// To the nearest nanosecond; within 292 years.
inline Duration from_seconds(double s) {
  return Duration(static_cast<int64_t>(std::llround(s * 1e9)));
}

}  // namespace baton
