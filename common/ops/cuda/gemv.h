#pragma once

#include <cstdint>

#include "common/base/dtype.h"
#include "common/device/cuda/cuda_stream.h"

// The matrix product of decode, where reading the weights is all the work:
//   out[m, n] = x[m, k] * w[n, k]^T (+ bias[n]) (+ out, if accumulate), m up to kMaxGemvRows,
// products of bf16 or f16 added up in f32. The bits of a row of out follow from that row of x, w, n
// and k alone: neither m, nor the row's place, nor `silu` or `norm` below changes the order of a
// sum.
namespace baton::ops {

inline constexpr int64_t kMaxGemvRows = 16;

struct GemvArgs {
  // The input: x, or norm_x with norm_weight to have it normed on the way (x stays null).
  const void* x = nullptr;  // [m, k]; 16-byte aligned
  int64_t x_stride = 0;     // elements from row to row, of x or norm_x; a multiple of 8
  int64_t m = 0;
  // The weights: rows follow each other without gaps; 16-byte aligned.
  const void* w = nullptr;  // [n, k]
  int64_t n = 0, k = 0;
  const float* bias = nullptr;  // [n] or null
  // The output.
  void* out = nullptr;     // [m, n], or [m, n / 2] with silu
  int64_t out_stride = 0;  // elements from row to row
  bool out_f32 = false;    // else `half`
  bool accumulate = false;
  // w is gate's rows, then up's; out[m, i] = silu(gate[m, i]) * up[m, i], gate and up rounded to
  // `half` before: the bits that silu_mul makes of such a product. Not with accumulate or out_f32.
  bool silu = false;
  // x = half(norm_x / sqrt(mean(norm_x^2) + norm_eps) * norm_weight): the bits that rms_norm makes.
  // Every block does it again and reads norm_x twice: it pays for one or two rows.
  const float* norm_x = nullptr;       // [m, k]; 16-byte aligned
  const float* norm_weight = nullptr;  // [k]; 16-byte aligned
  float norm_eps = 0;
  DType half = DType::kBF16;  // of x, w and out; or kF16
};

// Whether gemv can do a product of these sizes (rows of w must begin on 16 bytes).
bool gemv_fits(int64_t m, int64_t n, int64_t k);

// Enqueues it. Needs no scratch. m of 0 enqueues nothing.
void gemv(device::CudaStream& stream, const GemvArgs& args);

}  // namespace baton::ops
