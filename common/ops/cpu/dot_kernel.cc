#include "common/ops/cpu/dot_kernel.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <utility>

#include "common/base/dtype.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64

#include <immintrin.h>

namespace baton::ops {

bool has_bf16_dot() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512bf16") != 0;
}

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512bf16")
namespace {

constexpr size_t kVectors = kDotColumns / 16;  // of a panel
// With few rows one panel's sums are too few to hide how long each takes.
constexpr size_t kRowsOfTwoPanels = 4;

// Of 16 columns from `first` on, those that are written.
HWY_INLINE __mmask16 written(const DotArgs& g, size_t first) {
  const size_t count = first < g.columns ? g.columns - first : 0;
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

HWY_INLINE __m512 start(const DotArgs& g, size_t row, size_t first) {
  if (!g.go_on) return _mm512_setzero_ps();
  return _mm512_maskz_loadu_ps(written(g, first), g.out[row] + g.column + first);
}

HWY_INLINE void store(const DotArgs& g, size_t row, size_t first, __m512 sum) {
  const __mmask16 mask = written(g, first);
  float* out = g.out[row] + g.column + first;
  if (g.bias != nullptr) {
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, g.bias + g.column + first));
  }
  if (g.accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out));
  _mm512_mask_storeu_ps(out, mask, sum);
}

// Panels [panel, panel + kPanels). The rows' addresses are three to a register: the first, and one
// and two strides from it.
template <size_t kRows, size_t kPanels>
HWY_NOINLINE void dot_block(const DotArgs& g, size_t panel) {
  constexpr size_t kTriples = (kRows + 2) / 3, kSums = kPanels * kVectors;
  const size_t column = panel * kDotColumns;
  __m512 acc[kRows][kSums];
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < kSums; ++v) acc[r][v] = start(g, r, column + 16 * v);
  }
  const size_t stride = g.a_stride * sizeof(uint16_t);
  const char* triple[kTriples];
  HWY_UNROLL(3)
  for (size_t t = 0; t < kTriples; ++t) {
    triple[t] = reinterpret_cast<const char*>(g.a) + 3 * t * stride;
  }
  const uint16_t* b = g.b + panel * g.b_stride;
  // A prefetch of an address that is not mapped would cost a page walk each time.
  const std::byte* ahead = g.ahead != nullptr ? g.ahead : reinterpret_cast<const std::byte*>(b);
  const size_t second = g.ahead_step > 64 ? 64 : 0;
  for (size_t pair = 0; pair < g.pairs; ++pair, b += 2 * kDotColumns, ahead += g.ahead_step) {
    __builtin_prefetch(ahead, 0, 2);
    if constexpr (kRows > 1) __builtin_prefetch(ahead + second, 0, 2);
    __m512bh w[kSums];
    HWY_UNROLL(4)
    for (size_t v = 0; v < kSums; ++v) {
      const uint16_t* at = b + v / kVectors * g.b_stride + v % kVectors * 32;
      w[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(at));
    }
    HWY_UNROLL(3)
    for (size_t t = 0; t < kTriples; ++t) {
      asm("" : "+r"(triple[t]));  // else the compiler keeps an address for every row
      HWY_UNROLL(3)
      for (size_t i = 0; i < 3; ++i) {
        const size_t r = 3 * t + i;
        if (r >= kRows) continue;
        int two;
        __builtin_memcpy(&two, triple[t] + i * stride, sizeof(two));
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
        HWY_UNROLL(4)
        for (size_t v = 0; v < kSums; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], x, w[v]);
      }
      triple[t] += sizeof(int);
    }
  }
  HWY_UNROLL(8)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < kSums; ++v) store(g, r, column + 16 * v, acc[r][v]);
  }
}

using DotBlock = void (*)(const DotArgs&, size_t panel);

template <size_t kPanels, size_t... kRows>
constexpr std::array<DotBlock, sizeof...(kRows) + 1> make_blocks(std::index_sequence<kRows...>) {
  return {nullptr, &dot_block<kRows + 1, kPanels>...};
}
constexpr auto kOnePanel = make_blocks<1>(std::make_index_sequence<kDotRows>());
constexpr auto kTwoPanels = make_blocks<2>(std::make_index_sequence<kRowsOfTwoPanels>());

}  // namespace

void round_to_bf16(const float* from, size_t n, uint16_t* to) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m256bh v = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), reinterpret_cast<__m256i>(v));
  }
  if (i == n) return;
  const auto mask = static_cast<__mmask16>((1u << (n - i)) - 1);
  const __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + i));
  const auto written = static_cast<__mmask16>((1u << (n - i + n % 2)) - 1);
  _mm256_mask_storeu_epi16(to + i, written, reinterpret_cast<__m256i>(v));
}

HWY_POP_ATTRIBUTES

void dot_rows(const DotArgs& args, size_t rows) {
  const size_t panels = (args.columns + kDotColumns - 1) / kDotColumns;
  size_t p = 0;
  if (rows <= kRowsOfTwoPanels) {
    for (; p + 2 <= panels; p += 2) kTwoPanels[rows](args, p);
  }
  for (; p < panels; ++p) kOnePanel[rows](args, p);
}

// A hash of what comes out for numbers whose sums need rounding, in whichever order they are added.
std::string dot_rounding() {
  constexpr size_t kPairs = 64;
  alignas(64) uint16_t b[kPairs][kDotColumns][2];
  uint16_t a[2 * kPairs];
  uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    // Either sign, 2^-8 to 2^7, all seven bits of the significand.
    return static_cast<uint16_t>((state >> 16 & 0x8000) | ((119 + (state >> 20) % 16) << 7) |
                                 (state >> 24 & 0x7f));
  };
  for (auto& pair : b) {
    for (auto& column : pair) {
      for (uint16_t& v : column) v = next();
    }
  }
  for (uint16_t& v : a) v = next();
  float out[kDotColumns];
  float* row = out;
  dot_rows({.a = a, .a_stride = 0, .b = &b[0][0][0], .pairs = kPairs, .out = &row}, 1);
  uint32_t hash = 2166136261u;  // FNV-1a
  for (const float v : out) {
    uint32_t bits;
    __builtin_memcpy(&bits, &v, sizeof(bits));
    hash = (hash ^ bits) * 16777619u;
  }
  return fmt::format("{:08x}", hash);
}

}  // namespace baton::ops

#else

namespace baton::ops {

bool has_bf16_dot() { return false; }
void dot_rows(const DotArgs&, size_t) { std::abort(); }
void round_to_bf16(const float*, size_t, uint16_t*) { std::abort(); }
std::string dot_rounding() { std::abort(); }

}  // namespace baton::ops

#endif
