#pragma once

#include "tests/gpu/ops_bench.h"

namespace baton::gpu {

// One row a sequence over paged contexts, layer after layer. Parts: "attention CONTEXT" by batch.
json::array measure_decode_attention(Lab& lab, const BenchCache& cache, Parts* parts);

// A whole prompt's rows, and a chunk behind a long one. Parts: "prefill_attention" by rows.
json::array measure_prefill_attention(Lab& lab, const BenchCache& cache, Parts* parts);

inline std::string attention_name(uint32_t context) {
  return "attention " + std::to_string(context);
}

}  // namespace baton::gpu
