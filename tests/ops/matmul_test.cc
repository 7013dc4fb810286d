#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

std::unique_ptr<PackedMatrix> pack(const Ops& ops, Cpu& cpu, const Tensor& w, DType store) {
  auto packed = ops.pack(*cpu.device, {&w, 1}, store);
  EXPECT_TRUE(packed);
  return std::move(*packed);
}

// The contract word for word: one chain of FMAs, then the bias, then what was there.
MatrixF reference(const MatrixF& x, const MatrixF& w, const float* bias, const MatrixF* before) {
  MatrixF out(x.rows, w.rows);
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        sum = std::fma(x.data[m * x.cols + k], w.data[n * w.cols + k], sum);
      }
      if (bias != nullptr) sum += bias[n];
      if (before != nullptr) sum += before->data[m * w.rows + n];
      out.at(m, n) = sum;
    }
  }
  return out;
}

struct Shape {
  int64_t m, n, k;
};

class MatmulShapes : public testing::TestWithParam<Shape> {};

TEST_P(MatmulShapes, EqualsTheChainOfFusedMultiplyAddsBitForBit) {
  const auto [m, n, k] = GetParam();
  Random random(1);
  const Ops ops = cpu_ops();
  MatrixF x = random_matrix(random, m, k);
  MatrixF w = random_matrix(random, n, k, 0.1f);
  MatrixH half = to_bf16(w);
  const MatrixF rounded = to_f32(half);
  const MatrixF bias = random_matrix(random, 1, n);
  const MatrixF before = random_matrix(random, m, n);
  for (const unsigned threads : {1u, 2u, 3u}) {
    Cpu cpu(threads);
    const auto packed = pack(ops, cpu, half.tensor(), DType::kBF16);
    MatrixF out(m, n);
    ops.matmul(*cpu.stream, x.tensor(), *packed, nullptr, out.tensor(), false);
    expect_same_bits(out.data.data(), reference(x, rounded, nullptr, nullptr).data.data(),
                     out.data.size(), "bf16");
    out = before;
    ops.matmul(*cpu.stream, x.tensor(), *packed, bias.data.data(), out.tensor(), true);
    expect_same_bits(out.data.data(), reference(x, rounded, bias.data.data(), &before).data.data(),
                     out.data.size(), "bf16, bias, accumulate");
    const auto wide = pack(ops, cpu, w.tensor(), DType::kF32);
    ops.matmul(*cpu.stream, x.tensor(), *wide, bias.data.data(), out.tensor(), false);
    expect_same_bits(out.data.data(), reference(x, w, bias.data.data(), nullptr).data.data(),
                     out.data.size(), "f32, bias");
  }
}

INSTANTIATE_TEST_SUITE_P(All, MatmulShapes,
                         testing::Values(Shape{1, 1, 1}, Shape{1, 16, 8}, Shape{2, 17, 3},
                                         Shape{3, 31, 64}, Shape{4, 33, 65}, Shape{5, 160, 96},
                                         Shape{6, 100, 80}, Shape{7, 48, 130}, Shape{8, 64, 200},
                                         Shape{13, 95, 77}, Shape{16, 960, 57}, Shape{32, 80, 48},
                                         Shape{67, 112, 40}, Shape{130, 50, 1100},
                                         Shape{1, 576, 1536}, Shape{37, 1, 4500}));

TEST(Matmul, RowDoesNotDependOnItsNeighbours) {
  Random random(2);
  const Ops ops = cpu_ops();
  const int64_t rows = 150, n = 200, k = 600;
  MatrixF x = random_matrix(random, rows, k), w = random_matrix(random, n, k, 0.1f);
  Cpu one(1), three(3);
  const auto packed = pack(ops, one, w.tensor(), DType::kBF16);
  MatrixF all(rows, n);
  ops.matmul(*one.stream, x.tensor(), *packed, nullptr, all.tensor(), false);
  for (int trial = 0; trial < 60; ++trial) {
    const int64_t begin = pick(random, 0, rows - 1), count = pick(random, 1, rows - begin);
    MatrixF part(count, n);
    Cpu& cpu = trial % 2 == 0 ? one : three;
    ops.matmul(*cpu.stream, x.tensor().slice_rows(begin, count), *packed, nullptr, part.tensor(),
               false);
    expect_same_bits(part.data.data(), all.row(begin), part.data.size(), "rows of a part");
  }
}

TEST(Matmul, WritesOnlyItsColumnsOfAWiderOutput) {
  Random random(3);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  MatrixF x = random_matrix(random, 9, 40), w = random_matrix(random, 21, 40);
  const auto packed = pack(ops, cpu, w.tensor(), DType::kF32);
  MatrixF out(9, 50);
  std::fill(out.data.begin(), out.data.end(), 7.0f);
  ops.matmul(*cpu.stream, x.tensor(), *packed, nullptr, out.tensor().slice_cols(10, 21), false);
  const MatrixF expected = reference(x, w, nullptr, nullptr);
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t c = 0; c < 50; ++c) {
      const bool inside = c >= 10 && c < 31;
      ASSERT_EQ(out.at(r, c), inside ? expected.data[r * 21 + c - 10] : 7.0f);
    }
  }
}

TEST(Matmul, PacksPartsOneUnderTheOther) {
  Random random(4);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  MatrixF a = random_matrix(random, 20, 24), b = random_matrix(random, 7, 24);
  MatrixH c = to_bf16(random_matrix(random, 30, 24));
  const std::vector<Tensor> parts = {a.tensor(), c.tensor(), b.tensor()};
  const auto packed = ops.pack(*cpu.device, parts, DType::kF32);
  ASSERT_TRUE(packed);
  EXPECT_EQ((*packed)->n(), 57);
  EXPECT_EQ((*packed)->k(), 24);
  MatrixF stacked(57, 24);
  const MatrixF wide = to_f32(c);
  std::copy(a.data.begin(), a.data.end(), stacked.row(0));
  std::copy(wide.data.begin(), wide.data.end(), stacked.row(20));
  std::copy(b.data.begin(), b.data.end(), stacked.row(50));
  MatrixF x = random_matrix(random, 3, 24), out(3, 57);
  ops.matmul(*cpu.stream, x.tensor(), **packed, nullptr, out.tensor(), false);
  expect_same_bits(out.data.data(), reference(x, stacked, nullptr, nullptr).data.data(),
                   out.data.size(), "parts");
  // The packed matrix serves as the embedding table, too.
  const std::vector<TokenId> ids = {56, 0, 19, 20, 49, 50, 15, 16};
  MatrixF rows(8, 24);
  ops.embed_packed(*cpu.stream, ids, **packed, rows.tensor());
  for (size_t i = 0; i < ids.size(); ++i) {
    expect_same_bits(rows.row(i), stacked.row(ids[i]), 24, "embedding");
  }
}

TEST(Matmul, PackRefusesWhatItCannotHold) {
  const Ops ops = cpu_ops();
  Cpu cpu(1);
  MatrixF a(2, 3), b(2, 4);
  const std::vector<Tensor> uneven = {a.tensor(), b.tensor()};
  EXPECT_EQ(ops.pack(*cpu.device, uneven, DType::kF32).error().code, Errc::kInvalidArgument);
  const std::vector<Tensor> one = {a.tensor()};
  EXPECT_EQ(ops.pack(*cpu.device, one, DType::kI32).error().code, Errc::kUnsupported);
  EXPECT_EQ(ops.pack(*cpu.device, {}, DType::kF32).error().code, Errc::kInvalidArgument);
}

}  // namespace
}  // namespace baton::ops
