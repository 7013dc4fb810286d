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

void rms_norm_row(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, float eps,
                  size_t n, float* HWY_RESTRICT out) {
  const F32 d;
  const float mean = sum_of_squares(x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  const VecF s = hn::Set(d, scale);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), s), hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(rms_norm_row);

void cpu_rms_norm(Stream& stream, const Tensor& x, const float* weight, float eps,
                  const Tensor& out) {
  assert(x.rows == out.rows && x.cols == out.cols);
  const auto row = HWY_DYNAMIC_DISPATCH(rms_norm_row);
  parallel_rows(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      row(x.row<float>(r), weight, eps, static_cast<size_t>(x.cols), out.row<float>(r));
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
