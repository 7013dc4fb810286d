#include "common/ops/cpu/onednn.h"

#include "common/ops/cpu/dot_kernel.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

bool is_brg(DType store) { return onednn_kernel(store).starts_with("brg:"); }

// Its kernels for less than AMX are slower than ours.
TEST(OneDnn, IsChosenForAmxAlone) {
  const std::string kernel = onednn_invariant_kernel(DType::kBF16);
  const bool amx = kernel.find("amx") != std::string::npos;
  EXPECT_EQ(bf16_products("").onednn, amx && has_bf16_dot() ? kernel : "");
  EXPECT_EQ(bf16_products("avx2").onednn, "");
  EXPECT_EQ(bf16_products("avx3").onednn, "");
}

// Where its name promises it. So a machine that has the instructions tests the check, and the
// library.
TEST(OneDnn, KernelThatPromisesItPassesTheCheck) {
  if (onednn_invariant_kernel(DType::kBF16).empty()) {
    EXPECT_FALSE(check_onednn());
    return;
  }
  const status checked = check_onednn();
  EXPECT_TRUE(checked) << checked.error().message;
}

// Multiplies with whatever kernel it has for the type on this machine.
class OneDnnMatrix : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (onednn_kernel(GetParam()).empty()) GTEST_SKIP() << "no oneDNN kernel on this machine";
  }
  std::unique_ptr<PackedMatrix> pack(Cpu& cpu, const Tensor& w) {
    auto packed = onednn_pack(*cpu.device, {&w, 1}, GetParam(), false);
    EXPECT_TRUE(packed) << packed.error().message;
    return std::move(*packed);
  }

  Ops ops_ = cpu_ops();
};

TEST_P(OneDnnMatrix, IsTheProductAndKeepsItsRows) {
  Random random(1);
  for (const auto& [m, n, k] : {std::tuple{1, 64, 32}, {5, 100, 48}, {70, 600, 96}, {3, 17, 40}}) {
    MatrixF x = random_matrix(random, m, k),
            w = to_f32(to_halves(random_matrix(random, n, k, 0.2f)));
    const MatrixF bias = random_matrix(random, 1, n), before = random_matrix(random, m, n);
    for (const unsigned threads : {1u, 3u}) {
      Cpu cpu(threads);
      const auto packed = pack(cpu, w.tensor());
      MatrixF out = before, row(1, k);
      ops_.matmul(*cpu.stream, x.tensor(), *packed, bias.data.data(), out.tensor(), true);
      // Activations are rounded to bf16 where the weights are.
      const double rounding = GetParam() == DType::kBF16 ? 1.0 / 256 : 1e-6;
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          double sum = 0, size = 1;
          for (int64_t i = 0; i < k; ++i) {
            sum += static_cast<double>(x.at(r, i)) * w.at(c, i);
            size += std::abs(static_cast<double>(x.at(r, i)) * w.at(c, i));
          }
          sum += bias.data[c] + before.data[r * n + c];
          ASSERT_NEAR(out.at(r, c), sum, rounding * size) << r << ", " << c;
        }
      }
      for (const TokenId id : {0, n - 1, n / 2}) {
        ops_.embed_packed(*cpu.stream, {&id, 1}, *packed, row.tensor());
        expect_same_bits(row.row(0), w.row(id), k, "weights of a row");
      }
    }
  }
}

TEST_P(OneDnnMatrix, RowsAreIndependentIfTheKernelIsBrg) {
  if (!is_brg(GetParam())) GTEST_SKIP() << onednn_kernel(GetParam()) << " does not promise it";
  Random random(2);
  const int64_t rows = 150, n = 640, k = 576;
  MatrixF x = random_matrix(random, rows, k), w = random_matrix(random, n, k, 0.1f);
  Cpu one(1), three(3);
  const auto packed_one = pack(one, w.tensor()), packed_three = pack(three, w.tensor());
  MatrixF all(rows, n);
  ops_.matmul(*one.stream, x.tensor(), *packed_one, nullptr, all.tensor(), false);
  for (int trial = 0; trial < 40; ++trial) {
    const int64_t begin = pick(random, 0, rows - 1), count = pick(random, 1, rows - begin);
    MatrixF part(count, n);
    const Tensor in = x.tensor().slice_rows(begin, count);
    if (trial % 2 == 0) {
      ops_.matmul(*one.stream, in, *packed_one, nullptr, part.tensor(), false);
    } else {
      ops_.matmul(*three.stream, in, *packed_three, nullptr, part.tensor(), false);
    }
    expect_same_bits(part.data.data(), all.row(begin), part.data.size(), "rows of a part");
  }
}

INSTANTIATE_TEST_SUITE_P(Types, OneDnnMatrix, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& i) { return std::string(name(i.param)); });

}  // namespace
}  // namespace baton::ops
