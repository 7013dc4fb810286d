#pragma once

#include <chrono>

namespace baton {

using Clock = std::chrono::steady_clock;
using TimePoint = Clock::time_point;
using Duration = Clock::duration;

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace baton
