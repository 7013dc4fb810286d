#pragma once

#include "common/base/result.h"
#include "common/ops/ops.h"

namespace baton::ops {

struct CudaOptions {
  // A row has the same bits in any batch, chunked any way, in prefill and in decode: one matrix
  // kernel and one attention kernel for all sizes. docs/numerics.md says what it costs.
  bool deterministic = false;
};

// The table for NVIDIA GPUs (common/device/cuda): weights and activations in bf16, sums and the
// residual stream in f32. kUnsupported in a build without CUDA.
result<Ops> cuda_ops(const CudaOptions& options);

}  // namespace baton::ops
