#pragma once

#include <cstdint>

#include "common/device/cuda/cuda_stream.h"
#include "common/device/tensor.h"

namespace baton::ops {

using device::CudaStream;

// out[m, n] = x[m, k] * w[n, k]^T (+ out): bf16 times bf16, sums in f32. Strides in elements.
struct Product {
  const void* x = nullptr;  // bf16 [m, k]
  const void* w = nullptr;  // bf16 [n, k], dense
  void* out = nullptr;      // f32 or bf16 [m, n]
  int64_t m = 0, n = 0, k = 0;
  int64_t x_stride = 0, out_stride = 0;
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
