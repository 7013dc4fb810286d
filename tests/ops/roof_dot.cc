#include "tests/ops/roof_dot.h"

#include "hwy/base.h"

#if HWY_ARCH_X86_64

#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bf16")
namespace baton::ops {

double dot_chains(size_t n, float* sink) {
  constexpr size_t kChains = 24;
  const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f7f));
  const auto y = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3a83));
  __m512 chain[kChains];
  HWY_UNROLL(24)
  for (size_t c = 0; c < kChains; ++c) chain[c] = _mm512_set1_ps(*sink + static_cast<float>(c));
  for (size_t s = 0; s < n; ++s) {
    HWY_UNROLL(24)
    for (size_t c = 0; c < kChains; ++c) chain[c] = _mm512_dpbf16_ps(chain[c], x, y);
  }
  HWY_UNROLL(24)
  for (size_t c = 1; c < kChains; ++c) chain[0] = _mm512_add_ps(chain[0], chain[c]);
  *sink = _mm512_cvtss_f32(chain[0]);
  return 2.0 * 32 * kChains * static_cast<double>(n);
}

}  // namespace baton::ops
HWY_POP_ATTRIBUTES

#else

namespace baton::ops {

double dot_chains(size_t, float*) { return 0; }

}  // namespace baton::ops

#endif
