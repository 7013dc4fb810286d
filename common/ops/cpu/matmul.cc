#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/matmul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <algorithm>
#include <cassert>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/gemm_kernel-inl.h"
#include "common/ops/cpu/matmul_grid.h"
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

}  // namespace baton::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// The rows in groups of nearly equal size. All of them pass over a panel while it is in cache, and
// each brings in its part of the next panel meanwhile.
template <class W>
void matmul_tile_of(const MatmulJob& job, const MatmulGrid::Tile& t) {
  const int64_t rows = t.row_end - t.row_begin;
  assert(rows <= MatmulGrid::kMaxBlockRows);
  const float* a[MatmulGrid::kMaxBlockRows];
  float* out[MatmulGrid::kMaxBlockRows];
  for (int64_t r = 0; r < rows; ++r) {
    a[r] = job.x.row<float>(t.row_begin + r);
    out[r] = job.out.row<float>(t.row_begin + r);
  }
  const RowGroups groups(rows, kMaxRows);
  const auto k = static_cast<size_t>(job.w.k());
  const size_t panel_bytes = k * kPanel * sizeof(W);
  const size_t prefetch_bytes = panel_bytes / static_cast<size_t>(groups.count);  // by each pass
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
    for (int64_t g = 0, row = 0; g < groups.count; ++g, next += prefetch_bytes) {
      const int64_t count = groups.size(g);
      args.a = a + row;
      args.out = out + row;
      all.prefetch = next;
      gemm_rows<W>(args, static_cast<int>(count), half, half_end);
      row += count;
    }
  }
}

void matmul_tile(const MatmulJob& job, const MatmulGrid::Tile& tile) {
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
HWY_EXPORT(matmul_tile);

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
  const MatmulGrid grid(x.rows, k_ * static_cast<int64_t>(sizeof(float)), panels(), pool.size());
  const auto tile = HWY_DYNAMIC_DISPATCH(matmul_tile);
  pool.parallel_for(static_cast<size_t>(grid.tasks()),
                    [&](size_t i, unsigned) { tile(job, grid.tile(static_cast<int64_t>(i))); });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
