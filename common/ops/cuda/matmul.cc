#include <cassert>

#include "common/ops/cuda/blas.h"
#include "common/ops/cuda/cuda_matrix.h"
#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/gemv.h"

namespace baton::ops {
namespace {

using device::CudaStream;

// Up to how many rows our own kernel streams the weights faster than cuBLASLt does: on small
// matrices, whose time is mostly start-up that it hides, more than on large ones
// (docs/benchmarks_gpu.md).
bool is_for_gemv(const Tensor& x, const CudaMatrix& w) {
  constexpr int64_t kSmall = 32 << 20;  // elements
  const int64_t most = w.n() * w.k() <= kSmall ? 8 : 4;
  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_stride % 8 == 0;
  return x.rows <= most && aligned && gemv_fits(x.rows, w.n(), w.k());
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
    GemvArgs args;
    args.x = x.data;
    args.x_stride = x.row_stride;
    args.w = matrix.data();
    args.m = x.rows;
    args.n = matrix.n();
    args.k = matrix.k();
    args.bias = bias;
    args.out = out.data;
    args.out_f32 = out.dtype == DType::kF32;
    args.out_stride = out.row_stride;
    args.accumulate = accumulate;
    args.half = matrix.dtype();
    gemv(stream, args);
    return;
  }
  blas_matmul(stream, product_of(x, matrix, out, accumulate), BlasMode::kFastest);
  if (bias != nullptr) add_bias(stream, bias, out);
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
