#pragma once

#include "common/latency/profile.h"
#include "common/latency/robust_fit.h"

namespace baton::latency {

struct DeviceRoofs {
  double bytes_per_second = 0;  // of memory; above 0
  double flop_per_second = 0;   // of matrix products; above 0
};

// Costs of a model that nobody has measured: its bytes over the roofs. Right to a factor of a few,
// which is what kRoughFit says of them to a StepModel. `weight_bytes` and `kv_bytes_per_token` are
// above 0 and of two bytes an element.
inline StepCosts rough_costs(double weight_bytes, double kv_bytes_per_token,
                             const DeviceRoofs& roofs) {
  const double fixed = weight_bytes / roofs.bytes_per_second;
  const double row = weight_bytes / roofs.flop_per_second;  // two operations a weight
  // A pair is four operations for each query element, of which a token has a few for each of K.
  constexpr double kQueriesPerKey = 4;
  return {.fixed = fixed,
          .row = row / 8,
          .row_beyond = row,
          .context_token = kv_bytes_per_token / roofs.bytes_per_second,
          .attended_pair = kv_bytes_per_token * kQueriesPerKey / roofs.flop_per_second,
          .output = row / 4,
          .ridge_rows = fixed / row};
}

inline constexpr FitOptions kRoughFit{.common_spread = 2, .own_spread = 1};

}  // namespace baton::latency
