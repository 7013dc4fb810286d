#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/silu_mul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// g / (1 + e^-g) * u for kLanes elements.
HWY_INLINE void silu_mul_vector(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up,
                                float* HWY_RESTRICT out) {
  const F32 d;
  const VecF g = hn::LoadU(d, gate);
  const VecF silu = hn::Div(g, hn::Add(hn::Set(d, 1.0f), exp_f32(hn::Neg(g))));
  hn::StoreU(hn::Mul(silu, hn::LoadU(d, up)), d, out);
}

void silu_mul_row(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t n,
                  float* HWY_RESTRICT out) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) silu_mul_vector(gate + i, up + i, out + i);
  if (i == n) return;
  alignas(64) float g[kLanes] = {}, u[kLanes] = {}, o[kLanes];
  std::memcpy(g, gate + i, (n - i) * sizeof(float));
  std::memcpy(u, up + i, (n - i) * sizeof(float));
  silu_mul_vector(g, u, o);
  std::memcpy(out + i, o, (n - i) * sizeof(float));
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(silu_mul_row);

void cpu_silu_mul(Stream& stream, const Tensor& gate_up, const Tensor& out) {
  assert(gate_up.rows == out.rows && gate_up.cols == 2 * out.cols);
  const auto row = HWY_DYNAMIC_DISPATCH(silu_mul_row);
  parallel_rows(stream, out.rows, 4 * out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = gate_up.row<float>(r);
      row(gate, gate + out.cols, static_cast<size_t>(out.cols), out.row<float>(r));
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
