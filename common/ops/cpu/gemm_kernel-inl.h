// The one inner kernel of matrix products and attention.
//
// Every output is ONE chain of fused multiply-adds over k = 0, 1, ... that starts from 0. Blocking
// changes which outputs are computed side by side, never the order within one, so the result is
// the same for any number of rows, any split over threads and any vector width.
#if defined(BATON_OPS_CPU_GEMM_KERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BATON_OPS_CPU_GEMM_KERNEL_INL_H_
#undef BATON_OPS_CPU_GEMM_KERNEL_INL_H_
#else
#define BATON_OPS_CPU_GEMM_KERNEL_INL_H_
#endif

#include <array>
#include <utility>

#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// The right-hand side comes in panels of 32 columns; the last may be half a panel. A bf16 row of a
// panel is one cache line, so that few activations stream the weights in one line after the other.
constexpr size_t kHalf = kVirtualLanes;

// A run of k whose rows of the right-hand side are `GemmArgs::row_stride` apart. What will be
// needed next, or null, is brought into L2 meanwhile: `GemmArgs::prefetch_step` bytes for each k.
// The hardware does not look past the end of a panel, or of a block of the KV cache.
struct Segment {
  const void* b;  // first row of the run, panel 0
  size_t k;
  const std::byte* prefetch = nullptr;
};

// out[r][c] = sum over k of a[r][k] * b[k][c] (+ bias[c]) (+ out[r][c]).
struct GemmArgs {
  const float* const* a;    // one pointer a row, to all k
  const Segment* segments;  // the right-hand side, in order of k
  size_t num_segments;
  size_t row_stride;    // elements from k to k + 1
  size_t panel_stride;  // elements from a panel to the next
  float* const* out;    // one pointer a row, to column 0
  size_t columns;       // those beyond are computed but not written
  const float* bias;    // of column 0, or null
  bool accumulate;
  size_t prefetch_step = 0;
};

// Rows that a kernel takes at most: as many as have their sums, the weights and an activation in
// registers. Where that is fewer for a whole panel, more rows take it in halves.
#if HWY_MAX_BYTES == 64
constexpr int kMaxRows = 8, kWholeRows = 8;
#else
constexpr int kMaxRows = 6, kWholeRows = 3;
#endif

// 16 columns of one row. bf16 on narrow vectors comes as (even columns, odd columns) of each 2 *
// kLanes, which costs a shift and a mask; finish_half puts them in order.
HWY_INLINE void load_half(const float* HWY_RESTRICT b, VecF (&v)[kParts]) {
  HWY_UNROLL(4)
  for (size_t i = 0; i < kParts; ++i) v[i] = hn::LoadU(F32(), b + i * kLanes);
}
HWY_INLINE void load_half(const uint16_t* HWY_RESTRICT b, VecF (&v)[kParts]) {
#if HWY_MAX_BYTES == 64
  v[0] = load_bf16(b);
#else
  const hn::Repartition<uint16_t, U32> d16;
  HWY_UNROLL(4)
  for (size_t i = 0; i < kParts; i += 2) {
    const auto pair = hn::BitCast(U32(), hn::LoadU(d16, b + i * kLanes));
    v[i] = hn::BitCast(F32(), hn::ShiftLeft<16>(pair));
    v[i + 1] = hn::BitCast(F32(), hn::And(pair, hn::Set(U32(), 0xffff0000u)));
  }
#endif
}

HWY_INLINE void finish_half(const float*, VecF (&)[kParts]) {}
HWY_INLINE void finish_half(const uint16_t*, VecF (&v)[kParts]) {
#if HWY_MAX_BYTES == 32
  const F32 d;
  const VecF low = hn::InterleaveLower(d, v[0], v[1]);
  const VecF high = hn::InterleaveUpper(d, v[0], v[1]);
  v[0] = hn::ConcatLowerLower(d, high, low);
  v[1] = hn::ConcatUpperUpper(d, high, low);
#elif HWY_MAX_BYTES == 16
  const F32 d;
  for (size_t i = 0; i < kParts; i += 2) {
    const VecF even = v[i];
    v[i] = hn::InterleaveLower(d, even, v[i + 1]);
    v[i + 1] = hn::InterleaveUpper(d, even, v[i + 1]);
  }
#else
  (void)v;
#endif
}

// The last columns where they do not fill a half.
HWY_NOINLINE void store_tail(const float* lane, const GemmArgs& g, float* out, size_t column) {
  for (size_t c = 0; column + c < g.columns; ++c) {
    float sum = lane[c];
    if (g.bias != nullptr) sum += g.bias[column + c];
    if (g.accumulate) sum += out[column + c];
    out[column + c] = sum;
  }
}

HWY_INLINE void store_half(const VecF (&v)[kParts], const GemmArgs& g, int row, size_t column) {
  const F32 d;
  float* out = g.out[row];
  if (column + kHalf > g.columns) {
    alignas(64) float lane[kHalf];
    for (size_t i = 0; i < kParts; ++i) hn::Store(v[i], d, lane + i * kLanes);
    store_tail(lane, g, out, column);
    return;
  }
  HWY_UNROLL(4)
  for (size_t i = 0; i < kParts; ++i) {
    const size_t c = column + i * kLanes;
    VecF sum = v[i];
    if (g.bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, g.bias + c));
    if (g.accumulate) sum = hn::Add(sum, hn::LoadU(d, out + c));
    hn::StoreU(sum, d, out + c);
  }
}

// Rows [0, kRows) times halves [half, half + kHalves) of one panel.
template <int kRows, int kHalves, class W>
HWY_NOINLINE void gemm_block(const GemmArgs& g, size_t half) {
  const F32 d;
  VecF acc[kRows][kHalves][kParts];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int h = 0; h < kHalves; ++h) {
      HWY_UNROLL(16)
      for (size_t i = 0; i < kParts; ++i) acc[r][h][i] = hn::Zero(d);
    }
  }
  const float* a[kRows];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) a[r] = g.a[r];
  for (size_t s = 0; s < g.num_segments; ++s) {
    const W* b =
        static_cast<const W*>(g.segments[s].b) + half / 2 * g.panel_stride + half % 2 * kHalf;
    const size_t k_end = g.segments[s].k;
    // A prefetch of an address that is not mapped would cost a page walk each time.
    const std::byte* ahead = g.segments[s].prefetch != nullptr
                                 ? g.segments[s].prefetch
                                 : static_cast<const std::byte*>(g.segments[s].b);
    for (size_t k = 0; k < k_end; ++k, b += g.row_stride, ahead += g.prefetch_step) {
      if constexpr (kRows > 1) __builtin_prefetch(ahead, 0, 2);
      HWY_UNROLL(16)
      for (int h = 0; h < kHalves; ++h) {
        VecF v[kParts];
        load_half(b + h * kHalf, v);
        HWY_UNROLL(16)
        for (int r = 0; r < kRows; ++r) {
          // Loaded again for each half: kept in registers, they would push sums out.
          if (h > 0) asm("" : "+r"(a[r]));
          const VecF x = hn::Set(d, a[r][k]);
          HWY_UNROLL(16)
          for (size_t i = 0; i < kParts; ++i) acc[r][h][i] = hn::MulAdd(x, v[i], acc[r][h][i]);
        }
      }
    }
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) a[r] += k_end;
  }

  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int h = 0; h < kHalves; ++h) {
      finish_half(static_cast<const W*>(nullptr), acc[r][h]);
      store_half(acc[r][h], g, r, (half + h) * kHalf);
    }
  }
}

using GemmBlock = void (*)(const GemmArgs&, size_t half);

// Kernels for 1, 2, ... rows of kHalves halves of a panel.
template <class W, int kHalves, int... kRows>
constexpr std::array<GemmBlock, sizeof...(kRows) + 1> make_gemm_blocks(
    std::integer_sequence<int, kRows...>) {
  return {nullptr, &gemm_block<kRows + 1, kHalves, W>...};
}
template <class W>
constexpr auto kWholePanels = make_gemm_blocks<W, 2>(std::make_integer_sequence<int, kWholeRows>());
template <class W>
constexpr auto kHalfPanels = make_gemm_blocks<W, 1>(std::make_integer_sequence<int, kMaxRows>());

// Rows [0, rows) times halves [begin, end); 1 <= rows <= kMaxRows, begin is even.
template <class W>
HWY_INLINE void gemm_rows(const GemmArgs& g, int rows, size_t begin, size_t end) {
  size_t h = begin;
  if (rows <= kWholeRows) {
    for (; h + 2 <= end; h += 2) kWholePanels<W>[rows](g, h);
  }
  for (; h < end; ++h) kHalfPanels<W>[rows](g, h);
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
