#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/vocab_row.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "common/ops/cpu/vocab_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

// Calls f(16 values, index of the first); the last group is filled up with minus infinity.
template <class F>
HWY_INLINE void for_each_16(const float* HWY_RESTRICT x, size_t n, F&& f) {
  size_t i = 0;
  for (; i + kVirtualLanes <= n; i += kVirtualLanes) f(x + i, i);
  if (i == n) return;
  alignas(64) float padded[kVirtualLanes];
  std::fill(std::copy(x + i, x + n, padded), padded + kVirtualLanes, kMinusInf);
  f(padded, i);
}

HWY_INLINE VecF load_clean(const float* HWY_RESTRICT x) {
  const VecF v = hn::LoadU(F32(), x);
  return hn::IfThenElse(hn::Eq(v, v), v, hn::Set(F32(), kMinusInf));
}

float max_of(const float* x, size_t n) {
  const F32 d;
  VecF part[kParts];
  for (VecF& p : part) p = hn::Set(d, kMinusInf);
  for_each_16(x, n, [&](const float* v, size_t) HWY_ATTR {
    for (size_t p = 0; p < kParts; ++p) part[p] = hn::Max(part[p], load_clean(v + p * kLanes));
  });
  for (size_t p = 1; p < kParts; ++p) part[0] = hn::Max(part[0], part[p]);
  return hn::GetLane(hn::MaxOfLanes(d, part[0]));
}

float sum_exp(const float* x, size_t n, float max) {
  const F32 d;
  const VecF m = hn::Set(d, max);
  VecF part[kParts];
  for (VecF& p : part) p = hn::Zero(d);
  for_each_16(x, n, [&](const float* v, size_t) HWY_ATTR {
    for (size_t p = 0; p < kParts; ++p) {
      part[p] = hn::Add(part[p], exp_f32(hn::Sub(load_clean(v + p * kLanes), m)));
    }
  });
  return sum_lanes(part);
}

void weights(const float* x, size_t n, float max, float scale, float* w) {
  const F32 d;
  const VecF m = hn::Set(d, max), s = hn::Set(d, scale);
  for_each_16(x, n, [&](const float* v, size_t i) HWY_ATTR {
    alignas(64) float e[kVirtualLanes];
    for (size_t p = 0; p < kParts; ++p) {
      const VecF y = hn::Mul(hn::Sub(load_clean(v + p * kLanes), m), s);
      hn::Store(exp_f32(y), d, e + p * kLanes);
    }
    std::copy_n(e, std::min(kVirtualLanes, n - i), w + i);
  });
}

// Whether any of the 16 is at least `threshold`.
HWY_INLINE bool any_reaches(const float* x, float threshold) {
  const F32 d;
  const VecF t = hn::Set(d, threshold);
  bool any = false;
  for (size_t p = 0; p < kParts; ++p) {
    any |= !hn::AllFalse(d, hn::Ge(hn::LoadU(d, x + p * kLanes), t));
  }
  return any;
}

size_t select(const float* x, size_t n, float threshold, TokenId* ids) {
  size_t count = 0;
  for_each_16(x, n, [&](const float* v, size_t i) HWY_ATTR {
    if (!any_reaches(v, threshold)) return;
    for (size_t j = 0; j < kVirtualLanes && i + j < n; ++j) {
      if (v[j] >= threshold) ids[count++] = static_cast<TokenId>(i + j);
    }
  });
  return count;
}

size_t find_first(const float* x, size_t n, float value) {
  const F32 d;
  const VecF want = hn::Set(d, value);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const intptr_t at = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, x + i), want));
    if (at >= 0) return i + static_cast<size_t>(at);
  }
  for (; i < n; ++i) {
    if (x[i] == value) return i;
  }
  return 0;
}

size_t top_of(const float* x, size_t n, size_t count, TokenLogprob* top) {
  size_t filled = 0;
  float worst = kMinusInf;
  for_each_16(x, n, [&](const float* v, size_t i) HWY_ATTR {
    if (filled == count && !any_reaches(v, worst)) return;
    for (size_t j = 0; j < kVirtualLanes && i + j < n; ++j) {
      const float value = v[j] == v[j] ? v[j] : kMinusInf;
      if (filled == count && !(value > worst)) continue;
      if (filled < count) ++filled;
      size_t at = filled - 1;  // an equal one that came before stays before
      for (; at > 0 && top[at - 1].logprob < value; --at) top[at] = top[at - 1];
      top[at] = {static_cast<TokenId>(i + j), value};
      worst = top[filled - 1].logprob;
    }
  });
  return filled;
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(max_of);
HWY_EXPORT(sum_exp);
HWY_EXPORT(weights);
HWY_EXPORT(select);
HWY_EXPORT(find_first);
HWY_EXPORT(top_of);

float row_max(const float* x, size_t n) { return HWY_DYNAMIC_DISPATCH(max_of)(x, n); }

TokenId row_find(const float* x, size_t n, float value) {
  return static_cast<TokenId>(HWY_DYNAMIC_DISPATCH(find_first)(x, n, value));
}

float row_sum_exp(const float* x, size_t n, float max) {
  return std::isfinite(max) ? HWY_DYNAMIC_DISPATCH(sum_exp)(x, n, max) : 0.0f;
}

void row_weights(const float* x, size_t n, float max, float scale, float* w) {
  HWY_DYNAMIC_DISPATCH(weights)(x, n, max, scale, w);
}

size_t row_select(const float* x, size_t n, float threshold, TokenId* ids) {
  return HWY_DYNAMIC_DISPATCH(select)(x, n, threshold, ids);
}

size_t row_top(const float* x, size_t n, size_t count, TokenLogprob* top) {
  return count == 0 ? 0 : HWY_DYNAMIC_DISPATCH(top_of)(x, n, count, top);
}

void report_logprobs(const float* x, size_t n, TokenId token, uint32_t top, SampleResult& result) {
  const float max = row_max(x, n);
  const float log_sum = std::isfinite(max) ? max + std::log(row_sum_exp(x, n, max)) : max;
  const auto logprob = [&](float logit) {
    const float lp = logit - log_sum;
    return lp > kMinLogprob ? std::min(lp, 0.0f) : kMinLogprob;  // NaN comes to the bound, too
  };
  result.logprob = logprob(x[token]);
  result.num_top = static_cast<uint32_t>(row_top(x, n, std::min(top, kMaxTopLogprobs), result.top));
  for (uint32_t i = 0; i < result.num_top; ++i) {
    result.top[i].logprob = logprob(result.top[i].logprob);
  }
}

}  // namespace baton::ops
#endif  // HWY_ONCE
