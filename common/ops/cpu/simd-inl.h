// Arithmetic shared by the CPU operations, compiled once for each instruction set.
//
// Results must not depend on the vector width: whatever reduces does so in kVirtualLanes lanes
// (element i goes to lane i % 16) that a fixed tree sums, and elementwise work has no scalar tail
// with other rounding.
#if defined(BATON_OPS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BATON_OPS_CPU_SIMD_INL_H_
#undef BATON_OPS_CPU_SIMD_INL_H_
#else
#define BATON_OPS_CPU_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/base/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using VecF = hn::Vec<F32>;

constexpr size_t kVirtualLanes = 16;
constexpr size_t kLanes = HWY_MAX_BYTES / sizeof(float);
constexpr size_t kParts = kVirtualLanes / kLanes;  // vectors that make up the virtual lanes
static_assert(kVirtualLanes % kLanes == 0);

// e^x, relative error below 8e-8, exactly 1 at 0. Below 2^-126: 0. Above 2^127: e^88.37. The
// polynomial is our own minimax fit of (e^r - 1 - r) / r^2 on |r| <= ln(2)/2.
HWY_INLINE VecF exp_f32(VecF x) {
  const F32 d;
  const U32 du;
  // Adding 1.5 * 2^23 rounds to the nearest integer n and leaves it in the low bits.
  const VecF magic = hn::Set(d, 12582912.0f);
  const VecF clamped = hn::Min(hn::Set(d, 88.37f), x);  // in this order NaN stays NaN
  const VecF shifted = hn::MulAdd(clamped, hn::Set(d, 1.44269504f), magic);
  const VecF n = hn::Sub(shifted, magic);
  VecF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VecF q = hn::Set(d, 1.381453e-3f);
  q = hn::MulAdd(q, r, hn::Set(d, 8.368745e-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.166839e-2f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.6666520e-1f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.9999993e-1f));
  const VecF one = hn::Set(d, 1.0f);
  const VecF p = hn::MulAdd(hn::MulAdd(q, r, one), r, one);
  const auto exponent = hn::Add(hn::BitCast(du, shifted), hn::Set(du, 127));
  const VecF y = hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(exponent)));
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, -87.33654f)), hn::Zero(d), y);
}

// The fixed tree over the virtual lanes: l + l+8, then +4, +2, +1.
HWY_INLINE float sum_lanes(const VecF (&part)[kParts]) {
  const F32 d;
  alignas(64) float lane[kVirtualLanes];
  for (size_t p = 0; p < kParts; ++p) hn::Store(part[p], d, lane + p * kLanes);
  for (size_t half = kVirtualLanes / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// Adds x[0..16)^2 to the virtual lanes.
HWY_INLINE void add_squares(const float* HWY_RESTRICT x, VecF (&part)[kParts]) {
  const F32 d;
  for (size_t p = 0; p < kParts; ++p) {
    const VecF v = hn::LoadU(d, x + p * kLanes);
    part[p] = hn::MulAdd(v, v, part[p]);
  }
}

// Sum of x[0..n)^2.
HWY_INLINE float sum_of_squares(const float* HWY_RESTRICT x, size_t n) {
  VecF part[kParts];
  for (VecF& p : part) p = hn::Zero(F32());
  size_t i = 0;
  for (; i + kVirtualLanes <= n; i += kVirtualLanes) add_squares(x + i, part);
  if (i < n) {
    alignas(64) float padded[kVirtualLanes] = {};
    std::memcpy(padded, x + i, (n - i) * sizeof(float));
    add_squares(padded, part);
  }
  return sum_lanes(part);
}

// bf16 to f32: exact.
HWY_INLINE VecF load_bf16(const uint16_t* HWY_RESTRICT p) {
  const auto wide = hn::PromoteTo(U32(), hn::LoadU(U16(), p));
  return hn::BitCast(F32(), hn::ShiftLeft<16>(wide));
}

// f32 to bf16: to nearest even, NaN stays NaN; the same bits as f32_to_bf16.
HWY_INLINE void store_bf16(VecF v, uint16_t* HWY_RESTRICT p) {
  const U32 du;
  const hn::RebindToSigned<F32> di;
  const auto u = hn::BitCast(du, v);
  const auto high = hn::ShiftRight<16>(u);
  const auto odd = hn::And(high, hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(u, hn::Add(hn::Set(du, 0x7fff), odd)));
  const auto nan = hn::Or(high, hn::Set(du, 0x40));
  const auto is_nan = hn::RebindMask(du, hn::Ne(v, v));
  const auto bits = hn::IfThenElse(is_nan, nan, rounded);
  hn::StoreU(hn::DemoteTo(U16(), hn::BitCast(di, bits)), U16(), p);
}

// Elements of either width as f32.
HWY_INLINE VecF load_f32(const uint16_t* HWY_RESTRICT p) { return load_bf16(p); }
HWY_INLINE VecF load_f32(const float* HWY_RESTRICT p) { return hn::LoadU(F32(), p); }
HWY_INLINE void store_f32(VecF v, uint16_t* HWY_RESTRICT p) { store_bf16(v, p); }
HWY_INLINE void store_f32(VecF v, float* HWY_RESTRICT p) { hn::StoreU(v, F32(), p); }
HWY_INLINE void put_f32(float v, uint16_t* p) { *p = f32_to_bf16(v); }
HWY_INLINE void put_f32(float v, float* p) { *p = v; }

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
