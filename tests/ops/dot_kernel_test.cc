#include "common/ops/cpu/dot_kernel.h"

#include <algorithm>
#include <limits>

#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

constexpr size_t kStride = 600;  // of the rows of a

class DotKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_bf16_dot()) GTEST_SKIP() << "no AVX512_BF16 on this machine";
    a_ = to_halves(random_matrix(random_, kDotRows, kStride)).data;
    const std::vector<uint16_t> b = to_halves(random_matrix(random_, kStride, kDotColumns)).data;
    std::copy(b.begin(), b.end(), b_);
  }

  // b(k, column).
  float b(size_t k, size_t column) const {
    return bf16_to_f32(b_[k / 2 * 2 * kDotColumns + 2 * column + k % 2]);
  }

  DotArgs args(MatrixF& out, float* (&rows)[kDotRows]) {
    for (size_t r = 0; r < kDotRows; ++r) rows[r] = out.row(static_cast<int64_t>(r));
    return {.a = a_.data(), .a_stride = kStride, .b = b_, .pairs = kStride / 2, .out = rows};
  }

  // The product of all rows.
  MatrixF all() {
    MatrixF out(kDotRows, kDotColumns);
    float* rows[kDotRows];
    dot_rows(args(out, rows), kDotRows);
    return out;
  }

  Random random_{1};
  std::vector<uint16_t> a_;
  alignas(64) uint16_t b_[kStride * kDotColumns];
};

TEST_F(DotKernel, IsTheProduct) {
  MatrixF out = all();
  for (size_t r = 0; r < kDotRows; ++r) {
    for (size_t c = 0; c < kDotColumns; ++c) {
      double sum = 0, size = 0;
      for (size_t k = 0; k < kStride; ++k) {
        const double term = static_cast<double>(bf16_to_f32(a_[r * kStride + k])) * b(k, c);
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(out.at(r, c), sum, kStride * 0x1p-24 * size) << r << ", " << c;
    }
  }
}

TEST_F(DotKernel, RowHasTheSameBitsAmongAnyOthers) {
  MatrixF expected = all();
  for (size_t rows = 1; rows <= kDotRows; ++rows) {
    for (size_t first = 0; first + rows <= kDotRows; ++first) {
      MatrixF out(kDotRows, kDotColumns);
      float* to[kDotRows];
      DotArgs g = args(out, to);
      g.a += first * kStride;
      g.ahead = reinterpret_cast<const std::byte*>(b_);
      g.ahead_step = 64;
      dot_rows(g, rows);
      expect_same_bits(out.row(0), expected.row(static_cast<int64_t>(first)), rows * kDotColumns,
                       std::to_string(rows) + " rows");
    }
  }
}

TEST_F(DotKernel, WritesItsColumnsAloneAndAddsTheBiasThenWhatWasThere) {
  MatrixF product = all();
  const MatrixF bias = random_matrix(random_, 1, 2 * kDotColumns);
  for (const size_t column : {size_t{0}, size_t{16}, size_t{32}}) {
    for (size_t columns = 1; columns <= kDotColumns; ++columns) {
      const MatrixF before = random_matrix(random_, kDotRows, 3 * kDotColumns);
      MatrixF out = before;
      float* rows[kDotRows];
      DotArgs g = args(out, rows);
      g.column = column;
      g.columns = columns;
      g.bias = bias.data.data();
      g.accumulate = true;
      dot_rows(g, kDotRows);
      for (int64_t r = 0; r < out.rows; ++r) {
        for (int64_t c = 0; c < out.cols; ++c) {
          const int64_t i = c - static_cast<int64_t>(column);
          const float old = before.data[r * out.cols + c];
          const bool written = i >= 0 && i < static_cast<int64_t>(columns);
          ASSERT_EQ(out.at(r, c), written ? product.at(r, i) + bias.data[c] + old : old)
              << "row " << r << ", column " << c << " of " << columns << " at " << column;
        }
      }
    }
  }
}

TEST_F(DotKernel, RoundsAsFormatsDo) {
  std::vector<float> from = random_matrix(random_, 1, 100).data;
  from[3] = std::numeric_limits<float>::infinity();
  from[4] = -std::numeric_limits<float>::infinity();
  from[5] = std::numeric_limits<float>::quiet_NaN();
  from[6] = std::numeric_limits<float>::max();  // rounds to infinity
  from[7] = 1.00390625f;                        // half-way: to even
  from[8] = 1.01171875f;
  from[9] = -0.0f;
  for (size_t n = 0; n <= from.size(); ++n) {
    const size_t written = n + n % 2;
    std::vector<uint16_t> to(from.size() + 2, 0xabcd);
    round_to_bf16(from.data(), n, to.data());
    for (size_t i = 0; i < n; ++i) {
      if (std::isnan(from[i])) {
        ASSERT_TRUE(std::isnan(bf16_to_f32(to[i])));
      } else {
        ASSERT_EQ(to[i], f32_to_bf16(from[i])) << from[i];
      }
    }
    if (n % 2 == 1) {
      ASSERT_EQ(to[n], 0);
    }
    for (size_t i = written; i < to.size(); ++i) ASSERT_EQ(to[i], 0xabcd) << n << ": " << i;
  }
  const float denormal = 1e-40f;
  uint16_t to[2];
  round_to_bf16(&denormal, 1, to);
  EXPECT_EQ(to[0], 0);
}

TEST_F(DotKernel, RoundingIsAFingerprint) {
  EXPECT_EQ(dot_rounding().size(), 8u);
  EXPECT_EQ(dot_rounding(), dot_rounding());
}

}  // namespace
}  // namespace baton::ops
