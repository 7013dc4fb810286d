// What the table promises holds for whichever kernel cpu_ops() takes on this machine, and for the
// one of f32 arithmetic, which that need not be (not where there is AVX512_BF16). Bit for bit a
// chain of FMAs is what the latter promises alone.
#include <optional>
#include <tuple>

#include "common/ops/cpu/cpu_matrix.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

std::unique_ptr<PackedMatrix> pack(const Ops& ops, Cpu& cpu, const Tensor& w, DType store) {
  auto packed = ops.pack(*cpu.device, {&w, 1}, store);
  EXPECT_TRUE(packed);
  return std::move(*packed);
}

bool is_ours(const PackedMatrix& m) { return dynamic_cast<const PanelMatrix*>(&m) != nullptr; }

MatrixF multiply(const Ops& ops, Cpu& cpu, const Tensor& x, const PackedMatrix& w) {
  MatrixF out(x.rows, w.n());
  ops.matmul(*cpu.stream, x, w, nullptr, out.tensor(), false);
  return out;
}

void expect_same(const MatrixF& a, const MatrixF& b, const std::string& what) {
  ASSERT_EQ(a.data.size(), b.data.size()) << what;
  expect_same_bits(a.data.data(), b.data.data(), a.data.size(), what);
}

// One chain of FMAs an output.
MatrixF chain(const MatrixF& x, const MatrixF& w) {
  MatrixF out(x.rows, w.rows);
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        sum = std::fma(x.data[m * x.cols + k], w.data[n * w.cols + k], sum);
      }
      out.at(m, n) = sum;
    }
  }
  return out;
}

// Then the bias, then what was there: each added to the product, in this order.
MatrixF plus(const MatrixF& product, const float* bias, const MatrixF* before) {
  MatrixF out = product;
  for (int64_t m = 0; m < out.rows; ++m) {
    for (int64_t n = 0; n < out.cols; ++n) {
      if (bias != nullptr) out.at(m, n) += bias[n];
      if (before != nullptr) out.at(m, n) += before->data[m * out.cols + n];
    }
  }
  return out;
}

// Whether each output is the true sum but for `unit` times the sum of the terms' sizes.
void expect_close(MatrixF out, MatrixF x, MatrixF w, double unit, const std::string& what) {
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        const double term = static_cast<double>(x.at(m, k)) * w.at(n, k);
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(out.at(m, n), sum, unit * size) << what << ": row " << m << ", column " << n;
    }
  }
}

struct Shape {
  int64_t m, n, k;
};

const auto kShapes = testing::Values(
    Shape{1, 1, 1}, Shape{1, 16, 8}, Shape{2, 17, 3}, Shape{3, 31, 64}, Shape{4, 33, 65},
    Shape{5, 160, 96}, Shape{6, 100, 80}, Shape{7, 48, 130}, Shape{8, 64, 200}, Shape{13, 95, 77},
    Shape{16, 960, 57}, Shape{32, 80, 48}, Shape{67, 112, 40}, Shape{130, 50, 1100},
    Shape{1, 576, 1536}, Shape{37, 1, 4500});

class OwnMatmul : public testing::TestWithParam<Shape> {};

TEST_P(OwnMatmul, EqualsTheChainOfFusedMultiplyAddsBitForBit) {
  const auto [m, n, k] = GetParam();
  Random random(1);
  const Ops own = own_ops(), table = cpu_ops();
  MatrixF x = random_matrix(random, m, k);
  MatrixF w = random_matrix(random, n, k, 0.1f);
  MatrixH half = to_halves(w);
  const MatrixF from_half = chain(x, to_f32(half)), from_wide = chain(x, w);
  const MatrixF bias = random_matrix(random, 1, n);
  const MatrixF before = random_matrix(random, m, n);
  for (const unsigned threads : {1u, 2u, 3u}) {
    Cpu cpu(threads);
    const auto packed = pack(own, cpu, half.tensor(), DType::kBF16);
    expect_same(multiply(own, cpu, x.tensor(), *packed), from_half, "bf16");
    MatrixF out = before;
    own.matmul(*cpu.stream, x.tensor(), *packed, bias.data.data(), out.tensor(), true);
    expect_same(out, plus(from_half, bias.data.data(), &before), "bf16, bias, accumulate");
    // Weights in f32 are our kernel's on every machine.
    const auto wide = pack(table, cpu, w.tensor(), DType::kF32);
    table.matmul(*cpu.stream, x.tensor(), *wide, bias.data.data(), out.tensor(), false);
    expect_same(out, plus(from_wide, bias.data.data(), nullptr), "f32, bias");
  }
}

INSTANTIATE_TEST_SUITE_P(All, OwnMatmul, kShapes);

struct Kernel {
  const char* name;
  Ops (*ops)();
};

const auto kKernels = testing::Values(Kernel{"Table", cpu_ops}, Kernel{"Own", own_ops});

class MatmulShapes : public testing::TestWithParam<std::tuple<Kernel, Shape>> {};

TEST_P(MatmulShapes, IsTheProductThenTheBiasThenWhatWasThere) {
  const auto [kernel, shape] = GetParam();
  const auto [m, n, k] = shape;
  Random random(5);
  const Ops ops = kernel.ops();
  MatrixF x = random_matrix(random, m, k), rounded = to_f32(to_halves(x));
  MatrixH half = to_halves(random_matrix(random, n, k, 0.1f));
  const MatrixF w = to_f32(half), bias = random_matrix(random, 1, n);
  const MatrixF before = random_matrix(random, m, n);
  // A product of two bf16 is an f32, so only k additions round, if the activations need not.
  const double additions = static_cast<double>(k) * 0x1p-24, activations = 0x1p-8;
  std::optional<MatrixF> expected, expected_rounded;
  for (const unsigned threads : {1u, 2u, 3u}) {
    Cpu cpu(threads);
    const auto packed = pack(ops, cpu, half.tensor(), DType::kBF16);
    const MatrixF out = multiply(ops, cpu, x.tensor(), *packed);
    const MatrixF out_rounded = multiply(ops, cpu, rounded.tensor(), *packed);
    if (!expected) {
      expect_close(out_rounded, rounded, w, additions, "activations in bf16");
      expect_close(out, x, w, additions + (is_ours(*packed) ? 0 : activations), "in f32");
      if (!is_ours(*packed)) expect_same(out, out_rounded, "rounded by the kernel");
      expected = out;
      expected_rounded = out_rounded;
    }
    const std::string on = std::to_string(threads) + " threads";
    expect_same(out, *expected, on);
    expect_same(out_rounded, *expected_rounded, on + ", activations in bf16");
    MatrixF sum = before;
    ops.matmul(*cpu.stream, x.tensor(), *packed, bias.data.data(), sum.tensor(), false);
    expect_same(sum, plus(out, bias.data.data(), nullptr), "bias");
    sum = before;
    ops.matmul(*cpu.stream, x.tensor(), *packed, nullptr, sum.tensor(), true);
    expect_same(sum, plus(out, nullptr, &before), "accumulate");
    sum = before;
    ops.matmul(*cpu.stream, x.tensor(), *packed, bias.data.data(), sum.tensor(), true);
    expect_same(sum, plus(out, bias.data.data(), &before), "bias, accumulate");
  }
}

TEST_P(MatmulShapes, TakesBf16WhereTheTableSaysSo) {
  const auto [kernel, shape] = GetParam();
  const auto [m, n, k] = shape;
  const Ops ops = kernel.ops();
  if (ops.bf16_input == DType::kF32) return;
  Random random(6);
  MatrixF x = random_matrix(random, m, k);
  x.at(0, 0) = -1e-41f;  // products take it for zero, of either type
  MatrixH half = to_halves(x);
  Cpu cpu(2);
  MatrixH w = to_halves(random_matrix(random, n, k, 0.1f));
  const auto packed = pack(ops, cpu, w.tensor(), DType::kBF16);
  expect_same(multiply(ops, cpu, half.tensor(), *packed), multiply(ops, cpu, x.tensor(), *packed),
              "in bf16");
}

std::string name_of(const testing::TestParamInfo<std::tuple<Kernel, Shape>>& info) {
  const auto& [kernel, s] = info.param;
  std::string name = kernel.name;
  for (const int64_t i : {s.m, s.n, s.k}) name += "_" + std::to_string(i);
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, MatmulShapes, testing::Combine(kKernels, kShapes), name_of);

class Matmul : public testing::TestWithParam<Kernel> {
 protected:
  Ops ops_ = GetParam().ops();
};

// Alone, in any part of the batch, and packed for any number of threads.
TEST_P(Matmul, RowDoesNotDependOnItsNeighbours) {
  Random random(2);
  const int64_t rows = 150;
  Cpu one(1), three(3);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{200, 600}, {576, 1536}, {33, 4101}}) {
    MatrixF x = random_matrix(random, rows, k), w = random_matrix(random, n, k, 0.1f);
    const auto packed_one = pack(ops_, one, w.tensor(), DType::kBF16);
    const auto packed_three = pack(ops_, three, w.tensor(), DType::kBF16);
    MatrixF all = multiply(ops_, one, x.tensor(), *packed_one);
    for (int trial = 0; trial < 60; ++trial) {
      const int64_t begin = pick(random, 0, rows - 1);
      const int64_t count = trial < 6 ? 1 + trial / 2 : pick(random, 1, rows - begin);
      const int64_t first = std::min(begin, rows - count);
      const Tensor part = x.tensor().slice_rows(first, count);
      const MatrixF out = trial % 2 == 0 ? multiply(ops_, one, part, *packed_one)
                                         : multiply(ops_, three, part, *packed_three);
      expect_same_bits(out.data.data(), all.row(first), out.data.size(), "rows of a part");
    }
  }
}

TEST_P(Matmul, ReadsAndWritesColumnsOfWiderMatrices) {
  Random random(3);
  Cpu cpu(2);
  MatrixF x = random_matrix(random, 9, 40), w = random_matrix(random, 21, 40), wide(9, 60);
  std::fill(wide.data.begin(), wide.data.end(), 1e30f);
  for (int64_t r = 0; r < 9; ++r) std::copy_n(x.row(r), 40, wide.row(r) + 5);
  for (const DType store : {DType::kF32, DType::kBF16}) {
    const auto packed = pack(ops_, cpu, w.tensor(), store);
    MatrixF expected = multiply(ops_, cpu, x.tensor(), *packed);
    MatrixF out(9, 50);
    std::fill(out.data.begin(), out.data.end(), 7.0f);
    ops_.matmul(*cpu.stream, wide.tensor().slice_cols(5, 40), *packed, nullptr,
                out.tensor().slice_cols(10, 21), false);
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t c = 0; c < 50; ++c) {
        const bool inside = c >= 10 && c < 31;
        ASSERT_EQ(out.at(r, c), inside ? expected.at(r, c - 10) : 7.0f) << name(store);
      }
    }
  }
}

TEST_P(Matmul, PacksPartsOneUnderTheOther) {
  Random random(4);
  Cpu cpu(2);
  MatrixF a = random_matrix(random, 20, 24), b = random_matrix(random, 7, 24);
  MatrixH c = to_halves(random_matrix(random, 30, 24));
  const std::vector<Tensor> parts = {a.tensor(), c.tensor(), b.tensor()};
  MatrixF stacked(57, 24);
  const MatrixF middle = to_f32(c);
  std::copy(a.data.begin(), a.data.end(), stacked.row(0));
  std::copy(middle.data.begin(), middle.data.end(), stacked.row(20));
  std::copy(b.data.begin(), b.data.end(), stacked.row(50));
  MatrixF x = to_f32(to_halves(random_matrix(random, 3, 24)));
  for (const DType store : {DType::kF32, DType::kBF16}) {
    const auto packed = ops_.pack(*cpu.device, parts, store);
    ASSERT_TRUE(packed);
    EXPECT_EQ((*packed)->n(), 57);
    EXPECT_EQ((*packed)->k(), 24);
    MatrixF stored = store == DType::kBF16 ? to_f32(to_halves(stacked)) : stacked;
    expect_close(multiply(ops_, cpu, x.tensor(), **packed), x, stored, 24 * 0x1p-24,
                 std::string(name(store)));
    // The packed matrix serves as the embedding table, too.
    const std::vector<TokenId> ids = {56, 0, 19, 20, 49, 50, 15, 16};
    MatrixF rows(8, 24);
    ops_.embed_packed(*cpu.stream, ids, **packed, rows.tensor());
    for (size_t i = 0; i < ids.size(); ++i) {
      expect_same_bits(rows.row(i), stored.row(ids[i]), 24, "embedding");
    }
  }
}

TEST_P(Matmul, PackRefusesWhatItCannotHold) {
  Cpu cpu(1);
  MatrixF a(2, 3), b(2, 4);
  const std::vector<Tensor> uneven = {a.tensor(), b.tensor()};
  const std::vector<Tensor> one = {a.tensor()};
  for (const DType store : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(ops_.pack(*cpu.device, uneven, store).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(ops_.pack(*cpu.device, {}, store).error().code, Errc::kInvalidArgument);
  }
  EXPECT_EQ(ops_.pack(*cpu.device, one, DType::kI32).error().code, Errc::kUnsupported);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Matmul, kKernels,
                         [](const auto& i) { return std::string(i.param.name); });

}  // namespace
}  // namespace baton::ops
