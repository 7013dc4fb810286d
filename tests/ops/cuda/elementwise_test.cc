#include <numeric>

#include "tests/ops/cuda/cuda_testing.h"

namespace baton::ops {
namespace {

using CudaElementwise = OnGpu;

constexpr int64_t kRows[] = {1, 3, 64, 300};

TEST_F(CudaElementwise, RmsNormDividesByTheRootMeanSquare) {
  for (const int64_t n : {64, 576, 960, 1536, 4096, 8192, 16384}) {
    for (const int64_t rows : kRows) {
      Random random(static_cast<uint32_t>(n + rows));
      MatrixF x = random_matrix(random, rows, n, 3.0f), expected(rows, n);
      const MatrixF weight = random_matrix(random, 1, n);
      cpu_ops_.rms_norm(*cpu_.stream, x.tensor(), weight.data.data(), 1e-5f, expected.tensor());
      const DeviceF x_there(*this, x), weight_there(*this, weight);
      const DeviceH out(*this, rows, n);
      fast_.rms_norm(*stream_, x_there.tensor(), weight_there.data(), 1e-5f, out.tensor());
      expect_near(out.get(), expected, kHalfBound, std::to_string(n));
    }
  }
}

TEST_F(CudaElementwise, RmsNormOfTinyAndHugeValues) {
  const int64_t n = 576;
  MatrixF x(3, n), expected(3, n), weight(1, n);
  Random random(1);
  for (int64_t i = 0; i < n; ++i) {
    weight.data[i] = 1 + 0.01f * static_cast<float>(i % 7);
    x.at(0, i) = 0;
    x.at(1, i) = 1e-6f * uniform(random, -1, 1);
    x.at(2, i) = 1e15f * uniform(random, -1, 1);
  }
  cpu_ops_.rms_norm(*cpu_.stream, x.tensor(), weight.data.data(), 1e-6f, expected.tensor());
  const DeviceF x_there(*this, x), weight_there(*this, weight);
  const DeviceH out(*this, 3, n);
  fast_.rms_norm(*stream_, x_there.tensor(), weight_there.data(), 1e-6f, out.tensor());
  const MatrixF got = to_f32(out.get());
  for (int64_t r = 0; r < 3; ++r) {
    expect_near(rows_of(got, r, 1), rows_of(expected, r, 1), kHalfBound, std::to_string(r));
  }
}

TEST_F(CudaElementwise, SiluMulIsGateTimesSigmoidTimesUp) {
  for (const int64_t n : {64, 1536, 3584, 12288, 14336}) {
    for (const int64_t rows : kRows) {
      Random random(static_cast<uint32_t>(n + rows));
      const MatrixH x = to_halves(random_matrix(random, rows, 2 * n, 2.0f));
      MatrixF wide = to_f32(x), expected(rows, n);
      cpu_ops_.silu_mul(*cpu_.stream, wide.tensor(), expected.tensor());
      const DeviceH x_there(*this, x), out(*this, rows, n);
      fast_.silu_mul(*stream_, x_there.tensor(), out.tensor());
      expect_near(out.get(), expected, kHalfBound, std::to_string(n));
    }
  }
}

TEST_F(CudaElementwise, SiluMulOverTheWholeRange) {
  const int64_t n = 2000;
  MatrixH x(1, 2 * n);
  for (int64_t i = 0; i < n; ++i) {
    x.data[i] = f32_to_half(static_cast<float>(i - n / 2) * 0.12f);  // -120 to 120
    x.data[n + i] = f32_to_half(-2.5f);
  }
  const DeviceH x_there(*this, x), out(*this, 1, n);
  fast_.silu_mul(*stream_, x_there.tensor(), out.tensor());
  const MatrixF got = to_f32(out.get());
  const double smallest = half_type() == DType::kF16 ? 3e-8 : 1e-30;
  for (int64_t i = 0; i < n; ++i) {
    const double g = half_to_f32(x.data[i]);
    const double expected = g / (1 + std::exp(-g)) * -2.5;
    ASSERT_NEAR(got.data[i], expected, smallest + 0.005 * std::abs(expected)) << g;
  }
}

TEST_F(CudaElementwise, RowsDoNotDependOnTheirNeighbours) {
  Random random(4);
  const int64_t rows = 200, n = 960;
  const DeviceF x(*this, random_matrix(random, rows, n)),
      weight(*this, random_matrix(random, 1, n));
  const DeviceH halves(*this, to_halves(random_matrix(random, rows, 2 * n)));
  const DeviceH silu(*this, rows, n), norm(*this, rows, n);
  fast_.silu_mul(*stream_, halves.tensor(), silu.tensor());
  fast_.rms_norm(*stream_, x.tensor(), weight.data(), 1e-5f, norm.tensor());
  const MatrixH all_silu = silu.get(), all_norm = norm.get();
  for (int trial = 0; trial < 12; ++trial) {
    const int64_t begin = pick(random, 0, rows - 1), count = pick(random, 1, rows - begin);
    const DeviceH a(*this, count, n), b(*this, count, n);
    fast_.silu_mul(*stream_, halves.tensor().slice_rows(begin, count), a.tensor());
    fast_.rms_norm(*stream_, x.tensor().slice_rows(begin, count), weight.data(), 1e-5f, b.tensor());
    expect_same_bits(a.get(), rows_of(all_silu, begin, count), "silu");
    expect_same_bits(b.get(), rows_of(all_norm, begin, count), "norm");
  }
}

TEST_F(CudaElementwise, RowsMayStandApart) {
  Random random(5);
  const int64_t rows = 5, n = 576;
  const MatrixH gate_up = to_halves(random_matrix(random, rows, 2 * n));
  MatrixF x = random_matrix(random, rows, n), norm_expected(rows, n), silu_expected(rows, n);
  MatrixF wide = to_f32(gate_up);
  const MatrixF weight = random_matrix(random, 1, n);
  cpu_ops_.rms_norm(*cpu_.stream, x.tensor(), weight.data.data(), 1e-5f, norm_expected.tensor());
  cpu_ops_.silu_mul(*cpu_.stream, wide.tensor(), silu_expected.tensor());
  const DeviceF x_there(*this, x, n + 16), weight_there(*this, weight);
  const DeviceH gate_up_there(*this, gate_up, 2 * n + 8), silu(*this, rows, n, n + 24);
  const DeviceH norm(*this, rows, n, n + 8);
  fast_.rms_norm(*stream_, x_there.tensor(), weight_there.data(), 1e-5f, norm.tensor());
  fast_.silu_mul(*stream_, gate_up_there.tensor(), silu.tensor());
  expect_near(norm.get(), norm_expected, kHalfBound, "norm");
  expect_near(silu.get(), silu_expected, kHalfBound, "silu");
}

TEST_F(CudaElementwise, OddWidths) {
  for (const int64_t n : {1, 7, 33, 577, 1002}) {
    Random random(static_cast<uint32_t>(n));
    MatrixF x = random_matrix(random, 3, n), norm_expected(3, n), silu_expected(3, n);
    const MatrixF weight = random_matrix(random, 1, n);
    const MatrixH gate_up = to_halves(random_matrix(random, 3, 2 * n));
    MatrixF wide = to_f32(gate_up);
    cpu_ops_.rms_norm(*cpu_.stream, x.tensor(), weight.data.data(), 1e-5f, norm_expected.tensor());
    cpu_ops_.silu_mul(*cpu_.stream, wide.tensor(), silu_expected.tensor());
    const DeviceF x_there(*this, x), weight_there(*this, weight);
    const DeviceH gate_up_there(*this, gate_up), norm(*this, 3, n), silu(*this, 3, n);
    fast_.rms_norm(*stream_, x_there.tensor(), weight_there.data(), 1e-5f, norm.tensor());
    fast_.silu_mul(*stream_, gate_up_there.tensor(), silu.tensor());
    expect_near(norm.get(), norm_expected, kHalfBound, "norm of " + std::to_string(n));
    expect_near(silu.get(), silu_expected, kHalfBound, "silu of " + std::to_string(n));
  }
}

TEST_F(CudaElementwise, EmbedTakesRowsOfEitherType) {
  for (const int64_t n : {16, 37, 576, 4096}) {
    Random random(5);
    const MatrixF table = random_matrix(random, 50, n);
    const MatrixH half = to_halves(table);
    const MatrixF wide = to_f32(half);
    const std::vector<TokenId> some = {49, 0, 7, 7, 21};
    const Shared<TokenId> ids(*this, some);
    const DeviceF table_there(*this, table), a(*this, 5, n), b(*this, 5, n);
    const DeviceH half_there(*this, half);
    fast_.embed(*stream_, ids.get(), table_there.tensor(), a.tensor());
    fast_.embed(*stream_, ids.get(), half_there.tensor(), b.tensor());
    const MatrixF from_f32 = a.get(), from_half = b.get();
    for (size_t i = 0; i < some.size(); ++i) {
      expect_same_bits(from_f32.data.data() + i * n, table.data.data() + some[i] * n, n, "f32");
      expect_same_bits(from_half.data.data() + i * n, wide.data.data() + some[i] * n, n, "half");
    }
  }
}

TEST_F(CudaElementwise, GatherCopiesTheRowsAskedFor) {
  for (const int64_t n : {16, 65, 576, 4096}) {
    Random random(6);
    const MatrixF x = random_matrix(random, 9, n);
    const MatrixH half = to_halves(x);
    const std::vector<uint32_t> some = {8, 0, 8, 3};
    const Shared<uint32_t> rows(*this, some);
    const DeviceF x_there(*this, x), out(*this, 4, n);
    const DeviceH half_there(*this, half), half_out(*this, 4, n);
    fast_.gather_rows(*stream_, x_there.tensor(), rows.get(), out.tensor());
    fast_.gather_rows(*stream_, half_there.tensor(), rows.get(), half_out.tensor());
    const MatrixF got = out.get();
    const MatrixH half_got = half_out.get();
    for (size_t i = 0; i < some.size(); ++i) {
      expect_same_bits(rows_of(got, i, 1), rows_of(x, some[i], 1), "f32");
      expect_same_bits(rows_of(half_got, i, 1), rows_of(half, some[i], 1), "half");
    }
  }
}

// Parts as ranks have them: of whole groups, uneven, one behind the other; and any others.
TEST_F(CudaElementwise, JoinPutsPartsSideBySide) {
  const std::vector<std::vector<int64_t>> cases = {{2048, 2048},
                                                   {384, 192},
                                                   {1376, 1360, 1376, 1392},
                                                   {16, 16, 16, 16, 16, 16, 16, 16},
                                                   {1, 1},
                                                   {5, 64, 3},
                                                   {33, 1, 8, 7, 100},
                                                   {76032, 75904},
                                                   std::vector<int64_t>(64, 128),
                                                   {7}};
  for (const auto& cols : cases) {
    const int64_t all = std::accumulate(cols.begin(), cols.end(), int64_t{0});
    for (const int64_t rows : {1, 3, 64}) {
      Random random(static_cast<uint32_t>(all + rows));
      std::vector<MatrixF> parts;
      std::vector<MatrixH> halves;
      std::vector<DeviceF> parts_there;
      std::vector<DeviceH> halves_there;
      std::vector<Tensor> tensors, half_tensors, host;
      for (const int64_t n : cols) {
        parts_there.emplace_back(*this, parts.emplace_back(random_matrix(random, rows, n)), n + 4);
        halves_there.emplace_back(*this, halves.emplace_back(to_halves(parts.back())));
        tensors.push_back(parts_there.back().tensor());
        half_tensors.push_back(halves_there.back().tensor());
      }
      for (MatrixF& part : parts) host.push_back(part.tensor());
      MatrixF expected(rows, all);
      cpu_ops_.join_columns(*cpu_.stream, host, expected.tensor());
      const DeviceF out(*this, rows, all, all + 3);
      const DeviceH half_out(*this, rows, all);
      fast_.join_columns(*stream_, tensors, out.tensor());
      fast_.join_columns(*stream_, half_tensors, half_out.tensor());
      const std::string what = std::to_string(cols.size()) + " parts of " + std::to_string(all);
      expect_same_bits(out.get(), expected, what);
      expect_same_bits(half_out.get(), to_halves(expected), what);
    }
  }
}

TEST_F(CudaElementwise, DrawnTokensTakeTheirPlaces) {
  std::vector<TokenId> ids(1000), drawn(300), expected(1000);
  Random random(7);
  for (TokenId& d : drawn) d = static_cast<TokenId>(pick(random, 0, 128255));
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto slot = static_cast<size_t>(pick(random, 0, 299));
    const bool unknown = pick(random, 0, 1) == 0;
    ids[i] = unknown ? -1 - static_cast<TokenId>(slot) : static_cast<TokenId>(slot);
    expected[i] = unknown ? drawn[slot] : ids[i];
  }
  const device::Buffer there = upload(std::span<const TokenId>(drawn));
  const device::Buffer all = upload(std::span<const TokenId>(ids));
  fast_.resolve_drawn(*stream_, {reinterpret_cast<TokenId*>(all.data()), ids.size()},
                      reinterpret_cast<const TokenId*>(there.data()));
  EXPECT_EQ(download<TokenId>(all.data(), ids.size()), expected);
}

// Beyond 65504 that number, which products' infinities count as, too. NaN stays NaN.
TEST_F(CudaElementwise, F16EndsAtItsLargestNumber) {
  if (half_type() != DType::kF16) GTEST_SKIP() << "bf16 has the range of f32";
  constexpr uint16_t kMost = 0x7bff, kLeast = 0xfbff, kInfinity = 0x7c00;
  for (const int64_t n : {8, 5}) {  // eight at a time, and one by one
    MatrixF x(1, n), weight(1, n);
    std::fill(x.data.begin(), x.data.end(), 1.0f);
    weight.data = {65000, 65519, 65520, -1e30f, INFINITY};
    weight.data.resize(n, NAN);
    const DeviceF x_there(*this, x), weight_there(*this, weight);
    const DeviceH norm(*this, 1, n);
    fast_.rms_norm(*stream_, x_there.tensor(), weight_there.data(), 0, norm.tensor());
    const MatrixH normed = norm.get();
    const std::vector<uint16_t> first(normed.data.begin(), normed.data.begin() + 5);
    EXPECT_EQ(first, (std::vector<uint16_t>{f32_to_half(65000), kMost, kMost, kLeast, kMost}));
    for (int64_t i = 5; i < n; ++i) EXPECT_TRUE(std::isnan(half_to_f32(normed.data[i])));

    MatrixH gate_up(1, 2 * n);
    std::fill_n(gate_up.data.begin(), n, f32_to_half(1000));
    std::fill_n(gate_up.data.begin() + n, n, f32_to_half(2));
    gate_up.data[1] = kInfinity;               // 65504 * 2
    gate_up.data[n + 2] = kInfinity | 0x8000;  // 1000 * -65504
    gate_up.data[3] = kInfinity | 0x8000;      // 0
    gate_up.data[n + 3] = kInfinity;
    const DeviceH gate_up_there(*this, gate_up), silu(*this, 1, n);
    fast_.silu_mul(*stream_, gate_up_there.tensor(), silu.tensor());
    const MatrixH out = silu.get();
    const std::vector<uint16_t> got(out.data.begin(), out.data.begin() + 4);
    EXPECT_EQ(got, (std::vector<uint16_t>{f32_to_half(2000), kMost, kLeast, 0x8000}));
  }
}

TEST_F(CudaElementwise, NoRowsAreNoWork) {
  const DeviceF x(*this, 0, 64), weight(*this, 1, 64), table(*this, 4, 64);
  const DeviceH halves(*this, 0, 128), out(*this, 0, 64);
  fast_.rms_norm(*stream_, x.tensor(), weight.data(), 1e-5f, out.tensor());
  fast_.silu_mul(*stream_, halves.tensor(), out.tensor());
  fast_.embed(*stream_, {}, table.tensor(), x.tensor());
  fast_.gather_rows(*stream_, table.tensor(), {}, x.tensor());
  fast_.resolve_drawn(*stream_, {}, nullptr);
  const std::vector<Tensor> parts = {x.tensor(), x.tensor()};
  const DeviceF none(*this, 0, 128);
  fast_.join_columns(*stream_, parts, none.tensor());
  x.get();
  out.get();
}

}  // namespace
}  // namespace baton::ops
