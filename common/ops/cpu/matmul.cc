#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/matmul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <algorithm>
#include <cassert>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/gemm_kernel-inl.h"
#include "common/ops/cpu/parallel.h"

#ifndef BATON_OPS_CPU_MATMUL_JOB_
#define BATON_OPS_CPU_MATMUL_JOB_
namespace baton::ops {

struct MatmulJob {
  const Tensor& x;
  const PanelMatrix& w;
  const float* bias;
  const Tensor& out;
  bool accumulate;
};

// A rectangle of the output, computed by one thread.
struct MatmulTile {
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
  int64_t panel_after;  // where this thread is likely to go on; -1 if nowhere
};

constexpr int64_t kMaxBlockRows = 256;

}  // namespace baton::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// The rows in groups of nearly equal size. All of them pass over a panel while it is in cache, and
// each brings in its part of the next panel meanwhile.
template <class W>
void matmul_tile_of(const MatmulJob& job, const MatmulTile& t) {
  const int64_t rows = t.row_end - t.row_begin;
  assert(rows <= kMaxBlockRows);
  const float* a[kMaxBlockRows];
  float* out[kMaxBlockRows];
  for (int64_t r = 0; r < rows; ++r) {
    a[r] = job.x.row<float>(t.row_begin + r);
    out[r] = job.out.row<float>(t.row_begin + r);
  }
  const int64_t groups = (rows + kMaxRows - 1) / kMaxRows;
  const int64_t small = rows / groups, large = rows % groups;  // the first `large` have one more
  const auto k = static_cast<size_t>(job.w.k());
  const size_t panel_bytes = k * kPanel * sizeof(W);
  const size_t prefetch_bytes = panel_bytes / static_cast<size_t>(groups);  // by each pass
  Segment all = {job.w.panel<W>(0), k};
  GemmArgs args = {.segments = &all,
                   .num_segments = 1,
                   .row_stride = kPanel,
                   .panel_stride = k * kPanel,
                   .columns = static_cast<size_t>(job.w.n()),
                   .bias = job.bias,
                   .accumulate = job.accumulate};
  const size_t halves = (args.columns + kHalf - 1) / kHalf;
  for (int64_t p = t.panel_begin; p < t.panel_end; ++p) {
    const int64_t after = p + 1 < t.panel_end ? p + 1 : t.panel_after;
    const auto* next = reinterpret_cast<const std::byte*>(job.w.panel<W>(std::max(after, p)));
    args.prefetch_step = (prefetch_bytes + k - 1) / k;
    const size_t half = static_cast<size_t>(2 * p), half_end = std::min(half + 2, halves);
    for (int64_t g = 0, row = 0; g < groups; ++g, next += prefetch_bytes) {
      const int64_t count = g < large ? small + 1 : small;
      args.a = a + row;
      args.out = out + row;
      all.prefetch = next;
      gemm_rows<W>(args, static_cast<int>(count), half, half_end);
      row += count;
    }
  }
}

void matmul_tile(const MatmulJob& job, const MatmulTile& tile) {
  if (job.w.dtype() == DType::kBF16) {
    matmul_tile_of<uint16_t>(job, tile);
  } else {
    matmul_tile_of<float>(job, tile);
  }
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {
namespace {

HWY_EXPORT(matmul_tile);

constexpr int64_t kRowBlockBytes = 384 << 10;  // activations that stay in L2 beside a panel
constexpr int64_t kMinBlockRows = 24;
constexpr int64_t kTasksPerThread = 3;  // evens out threads that are disturbed

// How the output is cut: row blocks by cache, column chunks by threads; never over k.
struct MatmulGrid {
  int64_t row_blocks, chunks;
};

MatmulGrid make_grid(int64_t rows, int64_t k, int64_t panels, int64_t threads) {
  const int64_t block_rows = std::clamp(kRowBlockBytes / (4 * k), kMinBlockRows, kMaxBlockRows);
  const int64_t row_blocks = (rows + block_rows - 1) / block_rows;
  if (threads == 1) return {row_blocks, 1};
  const int64_t wanted = (kTasksPerThread * threads + row_blocks - 1) / row_blocks;
  return {row_blocks, std::clamp<int64_t>(wanted, 1, panels)};
}

}  // namespace

void cpu_matmul(Stream& stream, const Tensor& x, const PackedMatrix& w, const float* bias,
                const Tensor& out, bool accumulate) {
  assert(x.cols == w.k() && out.cols == w.n() && x.rows == out.rows);
  if (x.rows == 0) return;
  static_cast<const CpuMatrix&>(w).multiply(cpu_stream(stream), x, bias, out, accumulate);
}

void PanelMatrix::multiply(device::CpuStream& stream, const Tensor& x, const float* bias,
                           const Tensor& out, bool accumulate) const {
  device::ThreadPool& pool = stream.pool();
  const MatmulJob job = {x, *this, bias, out, accumulate};
  const int64_t panels = this->panels();
  const MatmulGrid grid = make_grid(x.rows, k_, panels, pool.size());
  const auto tile = HWY_DYNAMIC_DISPATCH(matmul_tile);
  pool.parallel_for(static_cast<size_t>(grid.row_blocks * grid.chunks), [&](size_t i, unsigned) {
    const int64_t r = static_cast<int64_t>(i) / grid.chunks;
    const int64_t c = static_cast<int64_t>(i) % grid.chunks;
    const int64_t after = c + pool.size();  // chunks are claimed in turn
    tile(job, {.row_begin = x.rows * r / grid.row_blocks,
               .row_end = x.rows * (r + 1) / grid.row_blocks,
               .panel_begin = panels * c / grid.chunks,
               .panel_end = panels * (c + 1) / grid.chunks,
               .panel_after = after < grid.chunks ? panels * after / grid.chunks : -1});
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
