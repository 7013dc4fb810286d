#include "common/latency/error_window.h"

#include <algorithm>
#include <cmath>

namespace baton::latency {
namespace {

double quantile(std::array<float, ErrorWindow::kSize>& values, uint32_t n, double q) {
  const auto rank = static_cast<uint32_t>(std::clamp(q, 0.0, 1.0) * (n - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + rank, values.begin() + n);
  return values[rank];
}

}  // namespace

void ErrorWindow::add(Duration predicted, Duration actual) {
  if (predicted <= Duration::zero() || actual <= Duration::zero()) return;
  ratios_[count_++ % kSize] = static_cast<float>(to_seconds(actual) / to_seconds(predicted));
}

double ErrorWindow::ratio_quantile(double q) const {
  if (count_ == 0) return 1;
  auto values = ratios_;
  return quantile(values, size(), q);
}

double ErrorWindow::error_quantile(double q) const {
  if (count_ == 0) return 0;
  auto values = ratios_;
  for (float& v : values) v = std::abs(v - 1);
  return quantile(values, size(), q);
}

}  // namespace baton::latency
