#include "common/ops/cpu/dot_matrix.h"

#include <algorithm>
#include <vector>

#include "common/ops/cpu/matmul_grid.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/row_source.h"

namespace baton::ops {
namespace {

// Activations in bf16, row after row.
struct Rows {
  const uint16_t* data;
  int64_t stride;

  // An odd number of cache lines, so that rows that are read side by side do not meet in one set.
  static int64_t stride_for(int64_t k) {
    constexpr int64_t kLine = 64 / sizeof(uint16_t);
    return ((k + kLine - 1) / kLine | 1) * kLine;
  }
};

void fill_panel(const RowSource& source, const DotMatrix& m, int64_t p) {
  std::vector<uint16_t> row(static_cast<size_t>(2 * m.pairs()));
  for (int64_t c = 0; c < kPanel; ++c) {
    source.read(p * kPanel + c, row.data());
    uint16_t* column = m.panel(p) + 2 * c;
    for (int64_t i = 0; i < m.pairs(); ++i) {
      column[2 * kPanel * i] = row[2 * i];
      column[2 * kPanel * i + 1] = row[2 * i + 1];
    }
  }
}

// All rows of the tile pass over a panel while it is in cache, and each group of them brings in its
// part of the next panel meanwhile.
void multiply_tile(const DotMatrix& w, const Rows& x, const MatmulGrid::Tile& t, const float* bias,
                   const Tensor& out, bool accumulate) {
  float* rows[MatmulGrid::kMaxBlockRows];
  const int64_t count = t.row_end - t.row_begin;
  for (int64_t r = 0; r < count; ++r) rows[r] = out.row<float>(t.row_begin + r);
  const RowGroups groups(count, kDotRows);
  const int64_t panel_bytes = w.pairs() * 2 * kPanel * static_cast<int64_t>(sizeof(uint16_t));
  const int64_t ahead_bytes = panel_bytes / groups.count;
  DotArgs args = {.a_stride = static_cast<size_t>(x.stride),
                  .pairs = static_cast<size_t>(w.pairs()),
                  .bias = bias,
                  .accumulate = accumulate,
                  .ahead_step = static_cast<size_t>((ahead_bytes + w.pairs() - 1) / w.pairs())};
  for (int64_t p = t.panel_begin; p < t.panel_end; ++p) {
    const int64_t after = p + 1 < t.panel_end ? p + 1 : t.panel_after;
    const auto* ahead = reinterpret_cast<const std::byte*>(w.panel(std::max(after, p)));
    args.b = w.panel(p);
    args.column = static_cast<size_t>(p * kPanel);
    args.columns = static_cast<size_t>(std::min(kPanel, w.n() - p * kPanel));
    for (int64_t g = 0, row = 0; g < groups.count; ++g, ahead += ahead_bytes) {
      args.ahead = ahead;
      args.a = x.data + (t.row_begin + row) * x.stride;
      args.out = rows + row;
      dot_rows(args, static_cast<size_t>(groups.size(g)));
      row += groups.size(g);
    }
  }
}

void copy_row(const Tensor& x, int64_t r, uint16_t* to) {
  const auto cols = static_cast<size_t>(x.cols);
  if (x.dtype == DType::kF32) return round_to_bf16(x.row<float>(r), cols, to);
  std::copy_n(x.row<uint16_t>(r), cols, to);
  if (cols % 2 == 1) to[cols] = 0;
}

// x in bf16 and in whole pairs, as the kernel reads it.
Rows in_pairs(device::CpuStream& stream, const Tensor& x) {
  if (x.dtype == DType::kBF16 && x.cols % 2 == 0 && x.row_stride % 2 == 0) {
    return {x.as<uint16_t>(), x.row_stride};
  }
  const int64_t stride = Rows::stride_for(x.cols);
  uint16_t* rounded = stream.shared_scratch(0).get<uint16_t>(x.rows * stride);
  parallel_rows(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) copy_row(x, r, rounded + r * stride);
  });
  return {rounded, stride};
}

}  // namespace

void DotMatrix::multiply(device::CpuStream& stream, const Tensor& x, const float* bias,
                         const Tensor& out, bool accumulate) const {
  const Rows rows = in_pairs(stream, x);
  const auto row_bytes = rows.stride * static_cast<int64_t>(sizeof(uint16_t));
  const MatmulGrid grid(x.rows, row_bytes, panels(), stream.pool().size());
  stream.pool().parallel_for(static_cast<size_t>(grid.tasks()), [&](size_t i, unsigned) {
    multiply_tile(*this, rows, grid.tile(static_cast<int64_t>(i)), bias, out, accumulate);
  });
}

void DotMatrix::read_row(int64_t n, float* out) const {
  const uint16_t* column = panel(n / kPanel) + 2 * (n % kPanel);
  for (int64_t i = 0; i < k_; ++i) out[i] = bf16_to_f32(column[i / 2 * 2 * kPanel + i % 2]);
}

result<std::unique_ptr<PackedMatrix>> dot_pack(device::Device& device,
                                               std::span<const Tensor> parts) {
  BATON_TRY(const RowSource source, RowSource::make(parts, DType::kBF16));
  const int64_t n = source.rows(), k = source.cols();
  BATON_TRY(device::Buffer buffer, device.allocate(DotMatrix::bytes_for(n, k)));
  auto matrix = std::make_unique<DotMatrix>(n, k, std::move(buffer));
  const auto stream = device.make_stream();
  parallel_rows(*stream, matrix->panels(), kPanel * k, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) fill_panel(source, *matrix, p);
  });
  return std::unique_ptr<PackedMatrix>(std::move(matrix));
}

}  // namespace baton::ops
