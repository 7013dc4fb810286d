#include <cassert>

#include "common/ops/cuda/blas.h"
#include "common/ops/cuda/cuda_matrix.h"
#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/gemv.h"

namespace baton::ops {
namespace {

using device::CudaStream;

bool on_16_bytes(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Up to how many rows our own kernel streams the weights faster than cuBLASLt does: on small
// matrices, whose time is mostly start-up that it hides, more than on large ones
// (docs/benchmarks_gpu.md).
bool is_for_gemv(const Tensor& x, const CudaMatrix& w) {
  constexpr int64_t kSmall = 32 << 20;  // elements
  const int64_t most = w.n() * w.k() <= kSmall ? 8 : 4;
  const bool aligned = on_16_bytes(x.data) && x.row_stride % 8 == 0;
  return x.rows <= most && aligned && gemv_fits(x.rows, w.n(), w.k());
}

// Up to how many rows each block of the product norms them itself.
constexpr int64_t kMostNormedRows = 2;

GemvArgs gemv_of(const CudaMatrix& w, int64_t m, const float* bias, const Tensor& out,
                 bool accumulate) {
  GemvArgs args;
  args.m = m;
  args.w = w.data();
  args.n = w.n();
  args.k = w.k();
  args.bias = bias;
  args.out = out.data;
  args.out_f32 = out.dtype == DType::kF32;
  args.out_stride = out.row_stride;
  args.accumulate = accumulate;
  args.half = w.dtype();
  return args;
}

Product product_of(const Tensor& x, const CudaMatrix& w, const Tensor& out, bool accumulate) {
  assert(x.dtype == w.dtype() && x.cols == w.k() && out.cols == w.n() && out.rows == x.rows);
  assert(!accumulate || out.dtype == DType::kF32);
  return {.x = x.data,
          .w = w.data(),
          .out = out.data,
          .m = x.rows,
          .n = w.n(),
          .k = w.k(),
          .x_stride = x.row_stride,
          .out_stride = out.row_stride,
          .half = x.dtype,
          .out_f32 = out.dtype == DType::kF32,
          .accumulate = accumulate};
}

}  // namespace

void cuda_matmul(Stream& s, const Tensor& x, const PackedMatrix& w, const float* bias,
                 const Tensor& out, bool accumulate) {
  if (x.rows == 0) return;
  auto& stream = static_cast<CudaStream&>(s);
  const auto& matrix = static_cast<const CudaMatrix&>(w);
  if (is_for_gemv(x, matrix)) {
    GemvArgs args = gemv_of(matrix, x.rows, bias, out, accumulate);
    args.x = x.data;
    args.x_stride = x.row_stride;
    gemv(stream, args);
    return;
  }
  blas_matmul(stream, product_of(x, matrix, out, accumulate), BlasMode::kFastest);
  if (bias != nullptr) add_bias(stream, bias, out);
}

bool cuda_fused_normed_matmul(Stream& s, const NormedMatmulArgs& a) {
  const auto& matrix = static_cast<const CudaMatrix&>(*a.w);
  const bool is_gated = a.gated.data != nullptr;
  const bool norms = a.x.rows <= kMostNormedRows && a.x.row_stride % 8 == 0 &&
                     on_16_bytes(a.x.data) && on_16_bytes(a.norm);
  if (a.x.rows == 0 || !(norms || is_gated) || !is_for_gemv(a.normed, matrix)) return false;
  assert(a.x.dtype == DType::kF32 && (!is_gated || a.gated.dtype == matrix.dtype()));
  const Tensor& out = is_gated ? a.gated : a.product;
  GemvArgs args = gemv_of(matrix, a.x.rows, a.bias, out, false);
  args.silu = is_gated;
  if (norms) {
    args.norm_x = static_cast<const float*>(a.x.data);
    args.norm_weight = a.norm;
    args.norm_eps = a.norm_eps;
    args.x_stride = a.x.row_stride;
  } else {
    cuda_rms_norm(s, a.x, a.norm, a.norm_eps, a.normed);
    args.x = a.normed.data;
    args.x_stride = a.normed.row_stride;
  }
  gemv(static_cast<CudaStream&>(s), args);
  return true;
}

void cuda_matmul_deterministic(Stream& s, const Tensor& x, const PackedMatrix& w, const float* bias,
                               const Tensor& out, bool accumulate) {
  if (x.rows == 0) return;
  auto& stream = static_cast<CudaStream&>(s);
  const auto& matrix = static_cast<const CudaMatrix&>(w);
  blas_matmul(stream, product_of(x, matrix, out, accumulate), BlasMode::kSameForAllRows);
  if (bias != nullptr) add_bias(stream, bias, out);
}

}  // namespace baton::ops
