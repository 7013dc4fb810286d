#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/matmul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <algorithm>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/gemm_kernel-inl.h"
#include "common/ops/cpu/packed_matrix.h"
#include "common/ops/cpu/parallel.h"

#ifndef BATON_OPS_CPU_MATMUL_JOB_
#define BATON_OPS_CPU_MATMUL_JOB_
namespace baton::ops {

struct MatmulJob {
  const Tensor& x;
  const CpuPackedMatrix& w;
  const float* bias;
  const Tensor& out;
  bool accumulate;
};

// A rectangle of the output, computed by one thread.
struct MatmulTile {
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
};

}  // namespace baton::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

// Up to kMaxRows rows from `row` on.
template <class W>
class RowGroup {
 public:
  RowGroup(const MatmulJob& job, int64_t row, int64_t rows) : rows_(static_cast<int>(rows)) {
    for (int r = 0; r < rows_; ++r) {
      a_[r] = job.x.row<float>(row + r);
      out_[r] = job.out.row<float>(row + r);
    }
    k_ = static_cast<size_t>(job.w.k());
    all_ = {job.w.panel<W>(0), k_};
    args_ = {.a = a_,
             .segments = &all_,
             .num_segments = 1,
             .row_stride = kPanel,
             .panel_stride = k_ * kPanel,
             .out = out_,
             .columns = static_cast<size_t>(job.w.n()),
             .bias = job.bias,
             .accumulate = job.accumulate,
             .prefetch = nullptr,
             .prefetch_step = 0};
  }

  void multiply(int64_t half_begin, int64_t half_end) {
    gemm_rows<W>(args_, rows_, static_cast<size_t>(half_begin), static_cast<size_t>(half_end));
  }
  // Has multiply() bring in the `part`-th of `parts` of a panel.
  void prefetch(const W* panel, int64_t part, int64_t parts) {
    const size_t bytes = k_ * kPanel * sizeof(W);
    args_.prefetch = reinterpret_cast<const std::byte*>(panel) + bytes * part / parts;
    args_.prefetch_step = kPanel * sizeof(W) / parts;
  }

 private:
  int rows_;
  size_t k_;
  Segment all_;
  const float* a_[kMaxRows];
  float* out_[kMaxRows];
  GemmArgs args_;
};

// Few rows: all panels in one go, as fast as memory brings them.
// More: groups of nearly equal size pass over a panel while it is in cache, and each pass brings
// in its part of the next panel.
template <class W>
void matmul_tile_of(const MatmulJob& job, const MatmulTile& t) {
  const int64_t rows = t.row_end - t.row_begin;
  const int64_t last_half = std::min(2 * t.panel_end, (job.w.n() + 15) / 16);
  if (rows <= kMaxWideRows) {
    RowGroup<W>(job, t.row_begin, rows).multiply(2 * t.panel_begin, last_half);
    return;
  }
  const int64_t groups = (rows + kMaxRows - 1) / kMaxRows;
  const int64_t step = halves_for(kMaxRows), passes = 2 / step * groups;
  for (int64_t p = t.panel_begin; p < t.panel_end; ++p) {
    int64_t pass = 0;
    for (int64_t h = 2 * p; h < std::min(2 * p + 2, last_half); h += step) {
      for (int64_t g = 0; g < groups; ++g, ++pass) {
        const int64_t begin = rows * g / groups, end = rows * (g + 1) / groups;
        RowGroup<W> group(job, t.row_begin + begin, end - begin);
        if (p + 1 < t.panel_end) group.prefetch(job.w.panel<W>(p + 1), pass, passes);
        group.multiply(h, std::min(h + step, last_half));
      }
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
constexpr int64_t kTasksPerThread = 6;         // evens out threads that are disturbed

// How the output is cut: row blocks by cache, column chunks by threads; never over k.
struct MatmulGrid {
  int64_t row_blocks, chunks;
};

MatmulGrid make_grid(int64_t rows, int64_t k, int64_t panels, int64_t threads) {
  const int64_t block_rows = std::max<int64_t>(kRowBlockBytes / (4 * k), 24);
  const int64_t row_blocks = (rows + block_rows - 1) / block_rows;
  if (threads == 1) return {row_blocks, 1};
  const int64_t wanted = (kTasksPerThread * threads + row_blocks - 1) / row_blocks;
  return {row_blocks, std::clamp<int64_t>(wanted, 1, panels)};
}

}  // namespace

void cpu_matmul(Stream& stream, const Tensor& x, const PackedMatrix& w, const float* bias,
                const Tensor& out, bool accumulate) {
  const auto& packed = static_cast<const CpuPackedMatrix&>(w);
  assert(x.cols == w.k() && out.cols == w.n() && x.rows == out.rows);
  if (x.rows == 0) return;
  device::ThreadPool& pool = cpu_stream(stream).pool();
  const MatmulJob job = {x, packed, bias, out, accumulate};
  const int64_t panels = packed.panels();
  const MatmulGrid grid = make_grid(x.rows, w.k(), panels, pool.size());
  const auto tile = HWY_DYNAMIC_DISPATCH(matmul_tile);
  pool.parallel_for(static_cast<size_t>(grid.row_blocks * grid.chunks), [&](size_t i, unsigned) {
    const int64_t r = static_cast<int64_t>(i) / grid.chunks;
    const int64_t c = static_cast<int64_t>(i) % grid.chunks;
    tile(job, {.row_begin = x.rows * r / grid.row_blocks,
               .row_end = x.rows * (r + 1) / grid.row_blocks,
               .panel_begin = panels * c / grid.chunks,
               .panel_end = panels * (c + 1) / grid.chunks});
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
