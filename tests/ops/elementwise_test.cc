#include <limits>

#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  Random random(1);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  for (const int64_t n : {1, 7, 16, 33, 576, 577, 2048}) {
    MatrixF x = random_matrix(random, 5, n), out(5, n);
    const MatrixF weight = random_matrix(random, 1, n);
    ops.rms_norm(*cpu.stream, x.tensor(), weight.data.data(), 1e-5f, out.tensor());
    for (int64_t r = 0; r < 5; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x.at(r, i)) * x.at(r, i);
      for (int64_t i = 0; i < n; ++i) {
        const double expected = x.at(r, i) / std::sqrt(sum / n + 1e-5) * weight.data[i];
        ASSERT_NEAR(out.at(r, i), expected, 1e-5 * (1 + std::abs(expected))) << n;
      }
    }
  }
}

TEST(RmsNorm, WorksInPlace) {
  Random random(2);
  const Ops ops = cpu_ops();
  Cpu cpu(1);
  MatrixF x = random_matrix(random, 3, 100), out(3, 100);
  const MatrixF weight = random_matrix(random, 1, 100);
  ops.rms_norm(*cpu.stream, x.tensor(), weight.data.data(), 1e-6f, out.tensor());
  ops.rms_norm(*cpu.stream, x.tensor(), weight.data.data(), 1e-6f, x.tensor());
  expect_same_bits(x.data.data(), out.data.data(), x.data.size(), "in place");
}

TEST(SiluMul, IsGateTimesSigmoidTimesUpOverTheWholeRange) {
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  const int64_t n = 2001;
  MatrixF x(2, 2 * n), out(2, n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < 2; ++r) {
      x.at(r, i) = static_cast<float>(i - n / 2) * 0.12f;  // -120 to 120
      x.at(r, n + i) = r == 0 ? 1.0f : -2.5f;
    }
  }
  ops.silu_mul(*cpu.stream, x.tensor(), out.tensor());
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const double g = x.at(r, i);
      const double expected = g / (1 + std::exp(-g)) * x.at(r, n + i);
      ASSERT_NEAR(out.at(r, i), expected, 1e-35 + 6e-7 * std::abs(expected)) << g;
    }
  }
}

TEST(SiluMul, TailElementsHaveTheBitsOfFullVectors) {
  Random random(3);
  const Ops ops = cpu_ops();
  Cpu cpu(1);
  MatrixF wide = random_matrix(random, 1, 2 * 64, 4.0f), all(1, 64);
  ops.silu_mul(*cpu.stream, wide.tensor(), all.tensor());
  for (int64_t n = 1; n < 40; ++n) {
    MatrixF x(1, 2 * n), out(1, n);
    std::copy_n(wide.row(0), n, x.row(0));
    std::copy_n(wide.row(0) + 64, n, x.row(0) + n);
    ops.silu_mul(*cpu.stream, x.tensor(), out.tensor());
    expect_same_bits(out.row(0), all.row(0), n, "tail of " + std::to_string(n));
  }
}

TEST(Elementwise, RowsDoNotDependOnTheirNeighboursOrOnThreads) {
  Random random(4);
  const Ops ops = cpu_ops();
  Cpu one(1), three(3);
  const int64_t rows = 200, n = 613;
  MatrixF x = random_matrix(random, rows, 2 * n), silu(rows, n), norm(rows, 2 * n);
  const MatrixF weight = random_matrix(random, 1, 2 * n);
  ops.silu_mul(*one.stream, x.tensor(), silu.tensor());
  ops.rms_norm(*one.stream, x.tensor(), weight.data.data(), 1e-5f, norm.tensor());
  for (int trial = 0; trial < 30; ++trial) {
    const int64_t begin = pick(random, 0, rows - 1), count = pick(random, 1, rows - begin);
    MatrixF a(count, n), b(count, 2 * n);
    ops.silu_mul(*three.stream, x.tensor().slice_rows(begin, count), a.tensor());
    ops.rms_norm(*three.stream, x.tensor().slice_rows(begin, count), weight.data.data(), 1e-5f,
                 b.tensor());
    expect_same_bits(a.data.data(), silu.row(begin), a.data.size(), "silu");
    expect_same_bits(b.data.data(), norm.row(begin), b.data.size(), "norm");
  }
}

TEST(Elementwise, WritesBf16AsItsF32Rounded) {
  Random random(7);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  for (const int64_t n : {1, 7, 16, 33, 576, 1537}) {
    MatrixF x = random_matrix(random, 9, 2 * n), norm(9, 2 * n), silu(9, n);
    x.at(3, 0) = std::nanf("");
    x.at(4, 0) = 1e-41f;  // a denormal stays one
    x.at(4, n) = 1.0f;
    MatrixH half_norm(9, 2 * n), half_silu(9, n);
    const MatrixF weight = random_matrix(random, 1, 2 * n);
    ops.rms_norm(*cpu.stream, x.tensor(), weight.data.data(), 1e-5f, norm.tensor());
    ops.rms_norm(*cpu.stream, x.tensor(), weight.data.data(), 1e-5f, half_norm.tensor());
    EXPECT_EQ(half_norm.data, to_halves(norm).data) << n;
    ops.silu_mul(*cpu.stream, x.tensor(), silu.tensor());
    ops.silu_mul(*cpu.stream, x.tensor(), half_silu.tensor());
    EXPECT_EQ(half_silu.data, to_halves(silu).data) << n;
  }
}

TEST(Embed, TakesRowsOfEitherType) {
  Random random(5);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  MatrixF table = random_matrix(random, 50, 37);
  MatrixH half = to_halves(table);
  const MatrixF wide = to_f32(half);
  const std::vector<TokenId> ids = {49, 0, 7, 7, 21};
  MatrixF out(5, 37);
  ops.embed(*cpu.stream, ids, table.tensor(), out.tensor());
  for (size_t i = 0; i < ids.size(); ++i) {
    expect_same_bits(out.row(i), table.row(ids[i]), 37, "f32");
  }
  ops.embed(*cpu.stream, ids, half.tensor(), out.tensor());
  for (size_t i = 0; i < ids.size(); ++i) {
    expect_same_bits(out.row(i), wide.data.data() + ids[i] * 37, 37, "bf16");
  }
}

TEST(GatherRows, CopiesTheRowsAskedFor) {
  Random random(6);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  MatrixF x = random_matrix(random, 9, 65), out(3, 65);
  const std::vector<uint32_t> rows = {8, 0, 8};
  ops.gather_rows(*cpu.stream, x.tensor(), rows, out.tensor());
  for (size_t i = 0; i < rows.size(); ++i) {
    expect_same_bits(out.row(i), x.row(rows[i]), 65, "row");
  }
}

TEST(JoinColumns, PutsPartsOfAnyTypeSideBySide) {
  Random random(7);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  MatrixF a = random_matrix(random, 70, 65), b = random_matrix(random, 70, 1);
  MatrixF out(70, 66);
  const std::vector<Tensor> parts = {a.tensor(), b.tensor()};
  ops.join_columns(*cpu.stream, parts, out.tensor());
  for (int64_t r = 0; r < 70; ++r) {
    expect_same_bits(out.row(r), a.row(r), 65, "first part");
    expect_same_bits(out.row(r) + 65, b.row(r), 1, "second part");
  }
}

}  // namespace
}  // namespace baton::ops
