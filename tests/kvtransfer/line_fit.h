#pragma once

#include <cmath>
#include <cstddef>
#include <span>

namespace baton::kvtransfer {

// y = offset + slope * x.
struct Line {
  double offset = 0, slope = 0;
};

// The line of least absolute deviations: unlike with squares, a few late points do not move it.
// Some best line passes through two of the points, so all pairs are tried: O(n^3), for hundreds. At
// least two different x.
inline Line fit_line(std::span<const double> x, std::span<const double> y) {
  Line best;
  double least = INFINITY;
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i + 1; j < x.size(); ++j) {
      if (x[i] == x[j]) continue;
      const double slope = (y[j] - y[i]) / (x[j] - x[i]);
      const Line line{y[i] - slope * x[i], slope};
      double sum = 0;
      for (size_t k = 0; k < x.size() && sum < least; ++k) {
        sum += std::abs(y[k] - line.offset - line.slope * x[k]);
      }
      if (sum < least) {
        least = sum;
        best = line;
      }
    }
  }
  return best;
}

}  // namespace baton::kvtransfer
