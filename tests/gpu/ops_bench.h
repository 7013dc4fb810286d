#pragma once

#include <map>
#include <string>
#include <utility>

#include "common/model/weights.h"
#include "tests/gpu/lab.h"

namespace baton::gpu {

// Seconds of one call, by operation and rows; what whole steps are compared with.
struct Part {
  double seconds = 0;  // of the operation
  double deterministic = 0;
  double cublas = 0;  // of cuBLASLt's best algorithm; 0: not a product
  double bytes = 0, flop = 0;
};
using Parts = std::map<std::pair<std::string, uint32_t>, Part>;

// Bandwidths, and cuBLASLt's rate for a large product; fills lab.roofs.
json::object measure_roofs(Lab& lab);

// The products of the model, for several numbers of rows, with the weights of one layer after the
// other; beside them cuBLASLt's best algorithm of those that its heuristics offer.
json::array measure_products(Lab& lab, const model::Weights& weights, Parts* parts);

// Everything else of a layer but attention.
json::array measure_elementwise(Lab& lab, const model::Weights& weights, const BenchCache& cache,
                                Parts* parts);

}  // namespace baton::gpu
