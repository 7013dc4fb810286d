#pragma once

#include <cstdint>

#include "common/device/cuda/cuda_stream.h"
#include "common/device/tensor.h"

namespace baton::ops {

using device::CudaStream;

// out[m, n] = x[m, k] * w[n, k]^T (+ out): halves times halves, sums in f32. Strides in elements.
// An f16 out is infinite where the product is beyond its 65504.
struct Product {
  const void* x = nullptr;  // `half` [m, k]
  const void* w = nullptr;  // `half` [n, k], dense
  void* out = nullptr;      // f32 or `half` [m, n]
  int64_t m = 0, n = 0, k = 0;
  int64_t x_stride = 0, out_stride = 0;
  DType half = DType::kBF16;  // or kF16
  bool out_f32 = false;
  bool accumulate = false;
};

enum class BlasMode : uint8_t {
  kFastest,         // up to 128 rows the fastest by trial, beyond what the heuristics like best
  kSameForAllRows,  // one kernel for every m, K never split: a row's bits do not depend on m
};

// By cuBLASLt; the stream keeps handle and plans. The first call for a shape asks the heuristics
// (some 50 us on the host) and may try what they offer (milliseconds, and only where the stream is
// not capturing); later ones only enqueue. Aborts where cuBLASLt has no kernel.
void blas_matmul(CudaStream& stream, const Product& product, BlasMode mode);

// out[r, c] += bias[c]. Moves out twice.
void add_bias(CudaStream& stream, const float* bias, const device::Tensor& out);

}  // namespace baton::ops
