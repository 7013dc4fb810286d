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
template <class T>
HWY_INLINE void silu_mul_vector(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up,
                                T* HWY_RESTRICT out) {
  const F32 d;
  const VecF g = hn::LoadU(d, gate);
  const VecF silu = hn::Div(g, hn::Add(hn::Set(d, 1.0f), exp_f32(hn::Neg(g))));
  store_f32(hn::Mul(silu, hn::LoadU(d, up)), out);
}

template <class T>
void silu_mul_row(const float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t n,
                  T* HWY_RESTRICT out) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) silu_mul_vector(gate + i, up + i, out + i);
  if (i == n) return;
  alignas(64) float g[kLanes] = {}, u[kLanes] = {};
  alignas(64) T o[kLanes];
  std::memcpy(g, gate + i, (n - i) * sizeof(float));
  std::memcpy(u, up + i, (n - i) * sizeof(float));
  silu_mul_vector(g, u, o);
  std::memcpy(out + i, o, (n - i) * sizeof(T));
}

void silu_mul_row_f32(const float* gate, const float* up, size_t n, void* out) {
  silu_mul_row(gate, up, n, static_cast<float*>(out));
}

void silu_mul_row_bf16(const float* gate, const float* up, size_t n, void* out) {
  silu_mul_row(gate, up, n, static_cast<uint16_t*>(out));
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(silu_mul_row_f32);
HWY_EXPORT(silu_mul_row_bf16);

void cpu_silu_mul(Stream& stream, const Tensor& gate_up, const Tensor& out) {
  assert(gate_up.rows == out.rows && gate_up.cols == 2 * out.cols);
  const auto row = out.dtype == DType::kF32 ? HWY_DYNAMIC_DISPATCH(silu_mul_row_f32)
                                            : HWY_DYNAMIC_DISPATCH(silu_mul_row_bf16);
  parallel_rows(stream, out.rows, 4 * out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = gate_up.row<float>(r);
      row(gate, gate + out.cols, static_cast<size_t>(out.cols), out.at(r));
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
