#include <cassert>

#include "common/ops/cuda/blas.h"
#include "common/ops/cuda/cuda_matrix.h"
#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/gemv.h"

namespace baton::ops {
namespace {

using device::CudaStream;

// Rows up to which our own kernel streams the weights faster than cuBLASLt does
// (docs/benchmarks_gpu.md).
constexpr int64_t kGemvRows = 16;

Product product_of(const Tensor& x, const CudaMatrix& w, const Tensor& out, bool accumulate) {
  assert(x.dtype == DType::kBF16 && x.cols == w.k() && out.cols == w.n() && out.rows == x.rows);
  assert(!accumulate || out.dtype == DType::kF32);
  return {.x = x.data,
          .w = w.data(),
          .out = out.data,
          .m = x.rows,
          .n = w.n(),
          .k = w.k(),
          .x_stride = x.row_stride,
          .out_stride = out.row_stride,
          .out_f32 = out.dtype == DType::kF32,
          .accumulate = accumulate};
}

}  // namespace

void cuda_matmul(Stream& s, const Tensor& x, const PackedMatrix& w, const float* bias,
                 const Tensor& out, bool accumulate) {
  if (x.rows == 0) return;
  auto& stream = static_cast<CudaStream&>(s);
  const auto& matrix = static_cast<const CudaMatrix&>(w);
  if (x.rows <= kGemvRows && gemv_fits(x.rows, matrix.n(), matrix.k())) {
    gemv(stream, {.x = x.as<__nv_bfloat16>(),
                  .x_stride = x.row_stride,
                  .w = matrix.data(),
                  .n = matrix.n(),
                  .k = matrix.k(),
                  .bias = bias,
                  .out = out.data,
                  .out_f32 = out.dtype == DType::kF32,
                  .out_stride = out.row_stride,
                  .accumulate = accumulate,
                  .m = x.rows});
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
