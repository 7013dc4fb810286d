#pragma once

#include "common/model/model.h"
#include "tests/gpu/ops_bench.h"

namespace baton::gpu {

// A model of lab.config with these weights, for steps of up to 8192 rows.
std::unique_ptr<model::Model> make_model(Lab& lab, const ops::Ops& ops, model::Weights weights);

// Decode steps at several batches and contexts: as the engine runs them (with a greedy draw, two in
// flight), as a recorded pass and call by call; beside the sum of their parts' bounds.
json::array measure_decode(Lab& lab, model::Model& model, const ops::Ops& ops,
                           const BenchCache& cache, const Parts& parts, bool deterministic);

// For how much of such steps the GPU has nothing to run, as CUPTI sees it (kernel_trace.h); empty
// where that is not there.
json::array measure_gaps(Lab& lab, model::Model& model, const ops::Ops& ops,
                         const BenchCache& cache);

// Whole prompts from an empty cache to their last row's logits.
json::array measure_prefill(Lab& lab, model::Model& model, const BenchCache& cache,
                            const Parts& parts);

}  // namespace baton::gpu
