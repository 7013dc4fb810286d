#include "sim/cluster/draw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace baton::sim {

double uniform(Random& random) {
  return (static_cast<double>(random.next() >> 11) + 0.5) * 0x1p-53;
}

double standard_normal(Random& random) {
  const double radius = std::sqrt(-2 * std::log(uniform(random)));
  return radius * std::cos(2 * std::numbers::pi * uniform(random));
}

double exponential(Random& random) { return -std::log(uniform(random)); }

double gamma_of(Random& random, double cv) {
  const double shape = 1 / (cv * cv);
  // Below 1 by the draw of a shape one higher.
  const double boost = shape < 1 ? std::pow(uniform(random), 1 / shape) : 1;
  const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = standard_normal(random);
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(uniform(random)) < x * x / 2 + d * (1 - v + std::log(v))) {
      return d * v * boost / shape;
    }
  }
}

uint32_t log_normal_length(Random& random, double mean) {
  const double variance = std::numbers::ln2;  // of the logarithm: standard deviation = mean
  const double x = mean * std::exp(standard_normal(random) * std::sqrt(variance) - variance / 2);
  return static_cast<uint32_t>(std::lround(std::clamp(x, 1.0, std::max(1.0, 16 * mean))));
}

}  // namespace baton::sim
