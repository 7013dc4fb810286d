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

#include <utility>

#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// A run of k whose rows of the right-hand side are `GemmArgs::row_stride` apart.
struct Segment {
  const void* b;  // first row of the run, panel 0
  size_t k;
};

// out[r][p * 16 + c] = sum over k of a[r][k] * b[k][p][c] (+ bias[p * 16 + c]) (+ out).
struct GemmArgs {
  const float* const* a;    // one pointer a row, each to all k
  const Segment* segments;  // the right-hand side, in order of k
  size_t num_segments;
  size_t row_stride;    // elements from k to k + 1
  size_t panel_stride;  // elements from a panel to the next
  float* const* out;    // one pointer a row, to column 0
  size_t columns;       // those beyond are computed (as zeros) but not written
  const float* bias;    // of column 0, or null
  bool accumulate;
};

#if HWY_MAX_BYTES == 64
constexpr int kMaxRows = 12;
// Panels side by side, so that enough chains are in flight to hide the latency of an FMA.
constexpr int panels_for_rows(int rows) { return rows <= 1 ? 8 : rows <= 3 ? 4 : 2; }
#else
constexpr int kMaxRows = 6;
constexpr int panels_for_rows(int rows) {
  return rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1;
}
#endif

// One row of a panel. bf16 on narrow vectors comes as (even columns, odd columns) of each 2 *
// kLanes, which costs a shift and a mask; finish_panel puts them in order.
HWY_INLINE void load_panel_row(const float* HWY_RESTRICT b, VecF (&v)[kParts]) {
  HWY_UNROLL(4)
  for (size_t i = 0; i < kParts; ++i) v[i] = hn::LoadU(F32(), b + i * kLanes);
}
HWY_INLINE void load_panel_row(const uint16_t* HWY_RESTRICT b, VecF (&v)[kParts]) {
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

HWY_INLINE void finish_panel(const float*, VecF (&)[kParts]) {}
HWY_INLINE void finish_panel(const uint16_t*, VecF (&v)[kParts]) {
#if HWY_MAX_BYTES < 64
  const F32 d;
  HWY_UNROLL(4)
  for (size_t i = 0; i < kParts; i += 2) {
    const VecF low = hn::InterleaveLower(d, v[i], v[i + 1]);
    const VecF high = hn::InterleaveUpper(d, v[i], v[i + 1]);
#if HWY_MAX_BYTES == 32
    v[i] = hn::ConcatLowerLower(d, high, low);
    v[i + 1] = hn::ConcatUpperUpper(d, high, low);
#else
    v[i] = low;
    v[i + 1] = high;
#endif
  }
#else
  (void)v;
#endif
}

// Writes up to 16 columns of one row of one panel.
HWY_INLINE void store_panel(const VecF (&v)[kParts], const GemmArgs& g, int row, size_t column) {
  const F32 d;
  float* out = g.out[row] + column;
  if (column + kVirtualLanes <= g.columns) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < kParts; ++i) {
      VecF sum = v[i];
      if (g.bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, g.bias + column + i * kLanes));
      if (g.accumulate) sum = hn::Add(sum, hn::LoadU(d, out + i * kLanes));
      hn::StoreU(sum, d, out + i * kLanes);
    }
    return;
  }
  alignas(64) float lane[kVirtualLanes];
  for (size_t i = 0; i < kParts; ++i) hn::Store(v[i], d, lane + i * kLanes);
  for (size_t c = 0; column + c < g.columns; ++c) {
    float sum = lane[c];
    if (g.bias != nullptr) sum += g.bias[column + c];
    if (g.accumulate) sum += out[c];
    out[c] = sum;
  }
}

// Rows [0, kRows) times panels [panel, panel + kPanels).
template <int kRows, int kPanels, class W>
HWY_NOINLINE void gemm_block(const GemmArgs& g, size_t panel) {
  const F32 d;
  VecF acc[kRows][kPanels][kParts];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int p = 0; p < kPanels; ++p) {
      HWY_UNROLL(16)
      for (size_t i = 0; i < kParts; ++i) acc[r][p][i] = hn::Zero(d);
    }
  }
  const float* a[kRows];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) a[r] = g.a[r];

  for (size_t s = 0; s < g.num_segments; ++s) {
    const W* b = static_cast<const W*>(g.segments[s].b) + panel * g.panel_stride;
    const size_t k_end = g.segments[s].k;
    for (size_t k = 0; k < k_end; ++k, b += g.row_stride) {
      HWY_UNROLL(16)
      for (int p = 0; p < kPanels; ++p) {
        VecF v[kParts];
        load_panel_row(b + p * g.panel_stride, v);
        HWY_UNROLL(16)
        for (int r = 0; r < kRows; ++r) {
          const VecF x = hn::Set(d, a[r][k]);
          HWY_UNROLL(16)
          for (size_t i = 0; i < kParts; ++i) acc[r][p][i] = hn::MulAdd(x, v[i], acc[r][p][i]);
        }
      }
    }
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) a[r] += k_end;
  }

  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int p = 0; p < kPanels; ++p) {
      finish_panel(static_cast<const W*>(nullptr), acc[r][p]);
      store_panel(acc[r][p], g, r, (panel + p) * kVirtualLanes);
    }
  }
}

using GemmBlock = void (*)(const GemmArgs&, size_t panel);

// Kernels for 1 to kMaxRows rows: `wide` takes panels_for_rows(rows) panels, `narrow` takes one.
template <class W>
struct GemmBlocks {
  GemmBlock wide[kMaxRows + 1];
  GemmBlock narrow[kMaxRows + 1];
};

template <class W, int... kRows>
constexpr GemmBlocks<W> make_gemm_blocks(std::integer_sequence<int, kRows...>) {
  return {{nullptr, &gemm_block<kRows + 1, panels_for_rows(kRows + 1), W>...},
          {nullptr, &gemm_block<kRows + 1, 1, W>...}};
}

template <class W>
constexpr GemmBlocks<W> kGemmBlocks =
    make_gemm_blocks<W>(std::make_integer_sequence<int, kMaxRows>());

// Rows [0, rows) times panels [begin, end); 1 <= rows <= kMaxRows.
template <class W>
HWY_INLINE void gemm_rows(const GemmArgs& g, int rows, size_t begin, size_t end) {
  const size_t step = static_cast<size_t>(panels_for_rows(rows));
  size_t p = begin;
  for (; p + step <= end; p += step) kGemmBlocks<W>.wide[rows](g, p);
  for (; p < end; ++p) kGemmBlocks<W>.narrow[rows](g, p);
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
