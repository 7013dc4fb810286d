#pragma once

#include "common/base/result.h"
#include "common/ops/ops.h"

namespace baton::ops {

struct CudaOptions {
  // Of weights, activations and caches: kBF16 or kF16. What f16 does beyond 65504: element.cuh.
  DType half = DType::kBF16;
  // A row has the same bits in any batch, chunked any way, in prefill and in decode: one matrix
  // kernel and one attention kernel for all sizes. docs/numerics.md says what it costs.
  bool deterministic = false;
};

// The table for NVIDIA GPUs (common/device/cuda): weights and activations in bf16 or f16, sums and
// the residual stream in f32. kUnsupported in a build without CUDA, kInvalidArgument for any other
// type.
result<Ops> cuda_ops(const CudaOptions& options);

}  // namespace baton::ops
