#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/rms_norm.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <cmath>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

template <class T>
void rms_norm_row(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, float eps,
                  size_t n, T* HWY_RESTRICT out) {
  const F32 d;
  const float mean = sum_of_squares(x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  const VecF s = hn::Set(d, scale);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store_f32(hn::Mul(hn::Mul(hn::LoadU(d, x + i), s), hn::LoadU(d, weight + i)), out + i);
  }
  for (; i < n; ++i) put_f32(x[i] * scale * weight[i], out + i);
}

void rms_norm_row_f32(const float* x, const float* weight, float eps, size_t n, void* out) {
  rms_norm_row(x, weight, eps, n, static_cast<float*>(out));
}

void rms_norm_row_bf16(const float* x, const float* weight, float eps, size_t n, void* out) {
  rms_norm_row(x, weight, eps, n, static_cast<uint16_t*>(out));
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(rms_norm_row_f32);
HWY_EXPORT(rms_norm_row_bf16);

void cpu_rms_norm(Stream& stream, const Tensor& x, const float* weight, float eps,
                  const Tensor& out) {
  assert(x.rows == out.rows && x.cols == out.cols);
  const auto row = out.dtype == DType::kF32 ? HWY_DYNAMIC_DISPATCH(rms_norm_row_f32)
                                            : HWY_DYNAMIC_DISPATCH(rms_norm_row_bf16);
  parallel_rows(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      row(x.row<float>(r), weight, eps, static_cast<size_t>(x.cols), out.at(r));
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
