#include <algorithm>
#include <numeric>

#include "tests/ops/cuda/cuda_testing.h"

namespace baton::ops {
namespace {

constexpr int64_t kMostRows = 500;

struct Shape {
  std::string name;
  int64_t n, k;
};

void PrintTo(const Shape& s, std::ostream* os) { *os << s.name << " " << s.n << "x" << s.k; }
std::string name_of(const testing::TestParamInfo<Shape>& info) { return info.param.name; }

// One weight matrix and what products with it must be: some columns in double, and for all of them
// the sum with signs drawn at random.
class Expected {
 public:
  Expected(const MatrixH& x, const MatrixH& w) : columns_(pick_columns(w.rows)) {
    const MatrixF wide = to_f32(x);
    std::vector<float> row(w.cols);
    values_.resize(x.rows * columns_.size());
    for (size_t c = 0; c < columns_.size(); ++c) {
      const uint16_t* from = w.data.data() + columns_[c] * w.cols;
      for (int64_t i = 0; i < w.cols; ++i) row[i] = half_to_f32(from[i]);
      for (int64_t m = 0; m < x.rows; ++m) {
        values_[m * columns_.size() + c] = dot(wide.data.data() + m * w.cols, row.data(), w.cols);
      }
    }
    signed_sums(wide, w);
  }

  // out = the product (+ bias) (+ before), of the first rows.
  void check(const MatrixF& out, double bound, const MatrixF* bias, const MatrixF* before,
             const std::string& what) const {
    MatrixF some(out.rows, static_cast<int64_t>(columns_.size())), expected = some;
    for (int64_t m = 0; m < out.rows; ++m) {
      double sum = signed_sum_[m], got = 0;
      for (int64_t n = 0; n < out.cols; ++n) {
        got += sign_[n] * out.data[m * out.cols + n];
        if (bias != nullptr) sum += sign_[n] * bias->data[n];
        if (before != nullptr) sum += sign_[n] * before->data[m * out.cols + n];
      }
      for (size_t c = 0; c < columns_.size(); ++c) {
        const int64_t n = columns_[c];
        double value = values_[m * columns_.size() + c];
        if (bias != nullptr) value += bias->data[n];
        if (before != nullptr) value += before->data[m * out.cols + n];
        expected.at(m, static_cast<int64_t>(c)) = static_cast<float>(value);
        some.at(m, static_cast<int64_t>(c)) = out.data[m * out.cols + n];
      }
      // The errors of single elements add up like a walk at random.
      ASSERT_TRUE(std::abs(got - sum) <=
                  6 * bound * std::sqrt(static_cast<double>(out.cols)) * rms_ + 1e-3)
          << what << ": the columns of row " << m << " sum to " << got << ", not " << sum;
    }
    expect_near(some, expected, bound, what);
  }

 private:
  static std::vector<int64_t> pick_columns(int64_t n) {
    std::vector<int64_t> columns = {0, 1, 7, 8, 63, 64, 127, 128, 255, 256, n / 2, n - 2, n - 1};
    Random random(3);
    while (columns.size() < 40) columns.push_back(pick(random, 0, n - 1));
    std::erase_if(columns, [&](int64_t c) { return c < 0 || c >= n; });
    std::sort(columns.begin(), columns.end());
    columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
    return columns;
  }
  static double dot(const float* a, const float* b, int64_t k) {
    double sum[4] = {};
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
      for (int j = 0; j < 4; ++j) sum[j] += static_cast<double>(a[i + j]) * b[i + j];
    }
    for (; i < k; ++i) sum[0] += static_cast<double>(a[i]) * b[i];
    return sum[0] + sum[1] + sum[2] + sum[3];
  }
  void signed_sums(const MatrixF& x, const MatrixH& w) {
    Random random(4);
    std::vector<double> sum(w.cols);
    sign_.resize(w.rows);
    for (int64_t n = 0; n < w.rows; ++n) {
      sign_[n] = pick(random, 0, 1) == 0 ? 1 : -1;
      const auto sign = static_cast<float>(sign_[n]);
      const uint16_t* from = w.data.data() + n * w.cols;
      for (int64_t i = 0; i < w.cols; ++i) sum[i] += sign * half_to_f32(from[i]);
    }
    double squares = 0;
    for (const double v : values_) squares += v * v;
    rms_ = std::sqrt(squares / static_cast<double>(values_.size())) + 1;  // 1: bias, before
    for (int64_t m = 0; m < x.rows; ++m) {
      double all = 0;
      for (int64_t i = 0; i < x.cols; ++i) all += x.data[m * x.cols + i] * sum[i];
      signed_sum_.push_back(all);
    }
  }

  std::vector<int64_t> columns_;
  std::vector<double> values_;  // [rows, columns_]
  std::vector<int> sign_;       // [n]
  std::vector<double> signed_sum_;
  double rms_ = 0;
};

class CudaMatrices : public OnGpu {
 protected:
  std::unique_ptr<PackedMatrix> pack(const Ops& ops, MatrixH& w) {
    const Tensor part = w.tensor();
    return std::move(ops.pack(*device_, {&part, 1}, half_type()).value());
  }

  // Both element types of output; alone, with a bias, on top of what is there.
  void check(const Ops& ops, const PackedMatrix& packed, const Expected& expected,
             const MatrixH& all_x, int64_t m) {
    const std::string what = ops.numerics + ", " + std::to_string(m) + " rows";
    const int64_t n = packed.n();
    const DeviceH x(*this, rows_of(all_x, 0, m));
    Random random(static_cast<uint32_t>(m));
    const MatrixF bias = random_matrix(random, 1, n);
    const DeviceF bias_there(*this, bias);
    if (!is_huge(n, packed.k())) {
      const DeviceH out(*this, m, n), with_bias(*this, m, n);
      ops.matmul(*stream_, x.tensor(), packed, nullptr, out.tensor(), false);
      ops.matmul(*stream_, x.tensor(), packed, bias_there.data(), with_bias.tensor(), false);
      expected.check(to_f32(out.get()), kHalfBound, nullptr, nullptr, what + " to halves");
      expected.check(to_f32(with_bias.get()), kHalfBound, &bias, nullptr,
                     what + " to halves, bias");
    }
    const DeviceF out(*this, m, n);
    ops.matmul(*stream_, x.tensor(), packed, nullptr, out.tensor(), false);
    const MatrixF alone = out.get();
    expected.check(alone, kF32Bound, nullptr, nullptr, what + " to f32");
    ops.matmul(*stream_, x.tensor(), packed, bias_there.data(), out.tensor(), true);
    expected.check(out.get(), kF32Bound, &bias, &alone, what + " to f32, bias, accumulated");
  }
  // A head over a large vocabulary: its products are only in f32, and take a while to look at.
  static bool is_huge(int64_t n, int64_t k) { return n * k > (int64_t{1} << 28); }
};

class CudaMatmul : public CudaMatrices, public testing::WithParamInterface<Shape> {};

TEST_P(CudaMatmul, IsTheProduct) {
  const auto [name, n, k] = GetParam();
  std::vector<int64_t> rows = {1, 2, 3, 7, 8, 16, 17, 33, 64, 128};
  if (n <= 8192) rows.push_back(kMostRows);
  if (is_huge(n, k)) rows = {1, 8, 33, 128};
  const MatrixH x = fast_random(1, rows.back(), k);
  MatrixH w = fast_random(2, n, k, 1.0f / std::sqrt(static_cast<float>(k)));
  const Expected expected(x, w);
  const auto packed = pack(fast_, w);
  ASSERT_EQ(packed->n(), n);
  ASSERT_EQ(packed->k(), k);
  for (const int64_t m : rows) {
    for (const Ops* ops : {&fast_, &deterministic_}) {
      ASSERT_NO_FATAL_FAILURE(check(*ops, *packed, expected, x, m));
    }
  }
}

// The matrices of Llama-3-8B, Llama-3-70B over 8 GPUs, Qwen3-8B and SmolLM2-135M.
INSTANTIATE_TEST_SUITE_P(
    Models, CudaMatmul,
    testing::Values(Shape{"llama8b_qkv", 6144, 4096}, Shape{"llama8b_o", 4096, 4096},
                    Shape{"llama8b_gate_up", 28672, 4096}, Shape{"llama8b_down", 4096, 14336},
                    Shape{"llama8b_head", 128256, 4096}, Shape{"llama70b_qkv", 1280, 8192},
                    Shape{"llama70b_o", 8192, 1024}, Shape{"llama70b_gate_up", 7168, 8192},
                    Shape{"llama70b_down", 8192, 3584}, Shape{"llama70b_head", 16032, 8192},
                    Shape{"qwen8b_gate_up", 24576, 4096}, Shape{"qwen8b_down", 4096, 12288},
                    Shape{"smol_qkv", 960, 576}, Shape{"smol_o", 576, 576},
                    Shape{"smol_gate_up", 3072, 576}, Shape{"smol_down", 576, 1536},
                    Shape{"smol_head", 49152, 576}),
    name_of);

struct Odd {
  int64_t m, n, k;
};
void PrintTo(const Odd& s, std::ostream* os) { *os << s.m << "x" << s.n << "x" << s.k; }

class CudaOddMatmul : public OnGpu, public testing::WithParamInterface<Odd> {};

TEST_P(CudaOddMatmul, IsTheCpusProduct) {
  const auto [m, n, k] = GetParam();
  Random random(1);
  MatrixH x = to_halves(random_matrix(random, m, k));
  MatrixH w = to_halves(random_matrix(random, n, k, 0.2f));
  MatrixF bias = random_matrix(random, 1, n), before = random_matrix(random, m, n);
  const Tensor part = w.tensor();
  MatrixF wide_w = to_f32(w);
  const Tensor wide_part = wide_w.tensor();
  const auto cpu_packed = cpu_ops_.pack(*cpu_.device, {&wide_part, 1}, DType::kF32).value();
  const auto packed = fast_.pack(*device_, {&part, 1}, half_type()).value();
  MatrixF wide = to_f32(x), plain(m, n), summed = before;
  cpu_ops_.matmul(*cpu_.stream, wide.tensor(), *cpu_packed, nullptr, plain.tensor(), false);
  cpu_ops_.matmul(*cpu_.stream, wide.tensor(), *cpu_packed, bias.data.data(), summed.tensor(),
                  true);
  const DeviceH x_there(*this, x);
  const DeviceF bias_there(*this, bias);
  for (const Ops* ops : {&fast_, &deterministic_}) {
    const DeviceH half(*this, m, n);
    const DeviceF out(*this, m, n), sum(*this, before);
    ops->matmul(*stream_, x_there.tensor(), *packed, nullptr, half.tensor(), false);
    ops->matmul(*stream_, x_there.tensor(), *packed, nullptr, out.tensor(), false);
    ops->matmul(*stream_, x_there.tensor(), *packed, bias_there.data(), sum.tensor(), true);
    expect_near(half.get(), plain, kHalfBound, ops->numerics + " to halves");
    expect_near(out.get(), plain, kF32Bound, ops->numerics + " to f32");
    expect_near(sum.get(), summed, kF32Bound, ops->numerics + " to f32, bias, accumulated");
  }
}

// The first run with compute-sanitizer, too.
INSTANTIATE_TEST_SUITE_P(Small, CudaOddMatmul,
                         testing::Values(Odd{1, 16, 8}, Odd{1, 64, 64}, Odd{3, 40, 64},
                                         Odd{8, 96, 72}, Odd{16, 960, 56}, Odd{17, 96, 128},
                                         Odd{67, 112, 40}, Odd{130, 72, 1104}));
INSTANTIATE_TEST_SUITE_P(Odd, CudaOddMatmul,
                         testing::Values(Odd{1, 1, 1}, Odd{2, 17, 3}, Odd{3, 31, 64},
                                         Odd{4, 33, 65}, Odd{7, 48, 130}, Odd{13, 95, 77},
                                         Odd{16, 960, 57}, Odd{37, 1, 4500}, Odd{130, 50, 1100}));

// Rows that stand apart, as a slice of columns has them.
TEST_F(CudaMatrices, RowsMayStandApart) {
  for (const int64_t m : {1, 5, 16, 40}) {
    const int64_t n = 136, k = 192;
    const MatrixH x = fast_random(1, m, k);
    MatrixH w = fast_random(2, n, k, 0.1f);
    const Expected expected(x, w);
    const auto packed = pack(fast_, w);
    const DeviceH apart(*this, x, k + 24);
    for (const Ops* ops : {&fast_, &deterministic_}) {
      const DeviceF out(*this, m, n, n + 8);
      const DeviceH half(*this, m, n, n + 40);
      ops->matmul(*stream_, apart.tensor(), *packed, nullptr, out.tensor(), false);
      ops->matmul(*stream_, apart.tensor(), *packed, nullptr, half.tensor(), false);
      expected.check(out.get(), kF32Bound, nullptr, nullptr, "f32");
      expected.check(to_f32(half.get()), kHalfBound, nullptr, nullptr, "halves");
    }
  }
}

// An output of f16 is never NaN because the sum is beyond its range, and a sum in f32 has none.
TEST_F(CudaMatrices, F16OverflowsToItsLargestNumberOrToInfinity) {
  if (half_type() != DType::kF16) GTEST_SKIP() << "bf16 has the range of f32";
  const int64_t n = 64, k = 4096;
  for (const int64_t m : {1, 8, 64, 200}) {
    MatrixH x(m, k), w(n, k);
    for (int64_t i = 0; i < k; ++i) {  // each half of K is beyond the range; the even rows' sum not
      for (int64_t r = 0; r < m; ++r) x.at(r, i) = f32_to_half(100);
      for (int64_t r = 0; r < n; ++r) {
        w.at(r, i) = f32_to_half(r % 2 == 0 && i >= k / 2 ? -1.0f : 1.0f);
      }
    }
    const auto packed = pack(fast_, w);
    const DeviceH x_there(*this, x), half(*this, m, n);
    const DeviceF wide(*this, m, n);
    for (const Ops* ops : {&fast_, &deterministic_}) {
      ops->matmul(*stream_, x_there.tensor(), *packed, nullptr, half.tensor(), false);
      ops->matmul(*stream_, x_there.tensor(), *packed, nullptr, wide.tensor(), false);
      MatrixF narrow = to_f32(half.get()), sums = wide.get();
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          EXPECT_EQ(sums.at(r, c), c % 2 == 0 ? 0.0f : 409600.0f);
          if (c % 2 == 0) {
            EXPECT_EQ(narrow.at(r, c), 0.0f);
          } else {
            EXPECT_GE(narrow.at(r, c), 65504.0f);
          }
        }
      }
    }
  }
}

TEST_F(CudaMatrices, NoRowsAreNoWork) {
  MatrixH w = fast_random(2, 64, 64);
  const auto packed = pack(fast_, w);
  const DeviceH x(*this, 0, 64), out(*this, 0, 64);
  for (const Ops* ops : {&fast_, &deterministic_}) {
    ops->matmul(*stream_, x.tensor(), *packed, nullptr, out.tensor(), false);
  }
  out.get();
}

// Parts of either type, one under the other; the packed matrix serves as a table, too.
TEST_F(CudaMatrices, PacksPartsAndServesAsTheEmbedding) {
  Random random(4);
  MatrixF a = random_matrix(random, 20, 24), b = random_matrix(random, 7, 24);
  MatrixH c = to_halves(random_matrix(random, 30, 24));
  const std::vector<Tensor> parts = {a.tensor(), c.tensor(), b.tensor()};
  const auto packed = fast_.pack(*device_, parts, half_type()).value();
  ASSERT_EQ(packed->n(), 57);
  MatrixH stacked(57, 24);
  const MatrixH a_half = to_halves(a), b_half = to_halves(b);
  std::copy(a_half.data.begin(), a_half.data.end(), stacked.row(0));
  std::copy(c.data.begin(), c.data.end(), stacked.row(20));
  std::copy(b_half.data.begin(), b_half.data.end(), stacked.row(50));
  const std::vector<TokenId> some = {56, 0, 19, 20, 49, 50, 15, 16};
  const Shared<TokenId> ids(*this, some);
  const DeviceF out(*this, 8, 24);
  fast_.embed_packed(*stream_, ids.get(), *packed, out.tensor());
  const MatrixF rows = out.get(), wide = to_f32(stacked);
  for (size_t i = 0; i < some.size(); ++i) {
    expect_same_bits(rows.data.data() + i * 24, wide.data.data() + some[i] * 24, 24, "row");
  }
}

TEST_F(CudaMatrices, PackRefusesWhatItCannotHold) {
  MatrixF a(2, 8), b(2, 16);
  const std::vector<Tensor> uneven = {a.tensor(), b.tensor()}, one = {a.tensor()};
  EXPECT_EQ(fast_.pack(*device_, uneven, half_type()).error().code, Errc::kInvalidArgument);
  EXPECT_EQ(fast_.pack(*device_, one, DType::kI32).error().code, Errc::kUnsupported);
  EXPECT_EQ(fast_.pack(*device_, {}, half_type()).error().code, Errc::kInvalidArgument);
}

// Deterministic: a row has the same bits in any company and at any place in it.
TEST_F(CudaMatrices, DeterministicRowsDoNotDependOnTheirNeighbours) {
  struct {
    int64_t n, k;
  } const shapes[] = {{960, 576}, {576, 1536}, {6144, 4096}, {4096, 14336}, {1280, 8192}};
  const Ops& ops = deterministic_;
  for (const auto& [n, k] : shapes) {
    const std::string shape = std::to_string(n) + "x" + std::to_string(k);
    const MatrixH x = fast_random(5, kMostRows, k);
    MatrixH w = fast_random(6, n, k, 1.0f / std::sqrt(static_cast<float>(k)));
    const auto packed = pack(ops, w);
    const DeviceH x_there(*this, x), half(*this, kMostRows, n);
    Random random(7);
    const MatrixF before = random_matrix(random, kMostRows, n);
    const DeviceF wide(*this, before);
    ops.matmul(*stream_, x_there.tensor(), *packed, nullptr, half.tensor(), false);
    ops.matmul(*stream_, x_there.tensor(), *packed, nullptr, wide.tensor(), true);
    const MatrixH all = half.get();
    const MatrixF all_wide = wide.get();
    for (const int64_t m : {1, 2, 7, 8, 16, 17, 33, 64, 65, 128, 200, 499}) {
      const int64_t begin = m == 1 ? 123 : pick(random, 0, kMostRows - m);
      const DeviceH part(*this, m, n);
      const DeviceF part_wide(*this, rows_of(before, begin, m));
      const Tensor rows = x_there.tensor().slice_rows(begin, m);
      ops.matmul(*stream_, rows, *packed, nullptr, part.tensor(), false);
      ops.matmul(*stream_, rows, *packed, nullptr, part_wide.tensor(), true);
      const std::string what =
          shape + ": " + std::to_string(m) + " rows from " + std::to_string(begin);
      ASSERT_NO_FATAL_FAILURE(expect_same_bits(part.get(), rows_of(all, begin, m), what));
      ASSERT_NO_FATAL_FAILURE(
          expect_same_bits(part_wide.get(), rows_of(all_wide, begin, m), what + ", f32"));
    }
  }
}

}  // namespace
}  // namespace baton::ops
