#include "router/tenants/token_bucket.h"

#include <algorithm>
#include <chrono>

namespace baton::router {
namespace {

constexpr double kMinuteSeconds = 60;

}  // namespace

double TokenBucket::level(TimePoint now) const {
  const double came = std::max(0.0, to_seconds(now - at_)) * size() / kMinuteSeconds;
  return std::min(size(), level_ + came);
}

void TokenBucket::set_rate(uint64_t per_minute, TimePoint now) {
  const double left = size_ == 0 ? static_cast<double>(per_minute) : level(now);
  size_ = per_minute;
  level_ = std::min(size(), left);
  at_ = now;
}

Duration TokenBucket::wait(double amount, TimePoint now) const {
  const double missing = std::min(amount, size()) - level(now);
  if (size_ == 0 || missing <= 0) return Duration::zero();
  const std::chrono::duration<double> time(missing * kMinuteSeconds / size());
  return std::chrono::ceil<milliseconds>(time);
}

void TokenBucket::take(double amount, TimePoint now) {
  if (size_ == 0) return;
  level_ = std::min(size(), level(now) - amount);
  at_ = std::max(at_, now);
}

}  // namespace baton::router
