#include <optional>

#include "tests/ops/cuda/cuda_testing.h"

namespace baton::ops {
namespace {

constexpr float kEps = 1e-5f;

struct Shape {
  std::string name;
  int64_t n, k;
};

void PrintTo(const Shape& s, std::ostream* os) { *os << s.name << " " << s.n << "x" << s.k; }
std::string name_of(const testing::TestParamInfo<Shape>& info) { return info.param.name; }

class CudaNormedMatmul : public OnGpu, public testing::WithParamInterface<Shape> {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    const auto [name, n, k] = GetParam();
    MatrixH w = fast_random(1, n, k, 0.05f);
    const Tensor part = w.tensor();
    w_ = std::move(fast_.pack(*device_, {&part, 1}, half_type()).value());
    norm_.emplace(*this, random_matrix(random_, 1, k));
    bias_.emplace(*this, random_matrix(random_, 1, n));
  }

  // All at once, and the operations one by one: the same bits. Whether it was done at once.
  bool check(int64_t rows, bool is_gated, bool has_bias, int64_t more_stride) {
    const auto [name, n, k] = GetParam();
    const std::string what = std::to_string(rows) + " rows" + (is_gated ? ", gated" : "") +
                             (has_bias ? ", bias" : "") + ", " + std::to_string(more_stride);
    const DeviceF x(*this, random_matrix(random_, rows, k), k + more_stride);
    const DeviceH normed(*this, rows, k), product(*this, rows, n, n + more_stride);
    const DeviceH gated(*this, rows, n / 2, n / 2 + more_stride);
    NormedMatmulArgs args = {.x = x.tensor(),
                             .norm = norm_->data(),
                             .norm_eps = kEps,
                             .w = w_.get(),
                             .bias = has_bias ? bias_->data() : nullptr,
                             .normed = normed.tensor(),
                             .product = product.tensor(),
                             .gated = is_gated ? gated.tensor() : Tensor{}};
    if (!fast_.fused_normed_matmul(*stream_, args)) return false;
    const MatrixH at_once = is_gated ? gated.get() : product.get();

    fast_.rms_norm(*stream_, args.x, args.norm, kEps, args.normed);
    fast_.matmul(*stream_, args.normed, *w_, args.bias, args.product, false);
    if (is_gated) fast_.silu_mul(*stream_, args.product, args.gated);
    expect_same_bits(at_once, is_gated ? gated.get() : product.get(), what);
    return true;
  }

  Random random_{2};
  std::unique_ptr<PackedMatrix> w_;
  std::optional<DeviceF> norm_, bias_;
};

TEST_P(CudaNormedMatmul, HasTheBitsOfItsParts) {
  for (const int64_t rows : {1, 2, 3, 4, 7, 8}) {
    for (const bool is_gated : {false, true}) {
      for (const bool has_bias : {false, true}) {
        for (const int64_t more_stride : {0, 8}) {
          const bool at_once = check(rows, is_gated, has_bias, more_stride);
          if (rows <= 2) {
            EXPECT_TRUE(at_once) << rows << " rows";
          }
          if (rows > 2 && !is_gated) {
            EXPECT_FALSE(at_once) << rows << " rows";
          }
        }
      }
    }
  }
}

// More rows than our own kernel is for, and rows that it cannot read sixteen bytes at a time.
TEST_P(CudaNormedMatmul, LeavesTheRestToItsParts) {
  EXPECT_FALSE(check(9, true, false, 0));
  EXPECT_FALSE(check(1, false, false, 4));
}

INSTANTIATE_TEST_SUITE_P(Model, CudaNormedMatmul,
                         testing::Values(Shape{"SmolLm2Qkv", 960, 576},
                                         Shape{"SmolLm2GateUp", 3072, 576},
                                         Shape{"Llama8BQkv", 6144, 4096},
                                         Shape{"Llama8BGateUp", 28672, 4096}),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Small, CudaNormedMatmul,
                         testing::Values(Shape{"Even", 96, 64}, Shape{"Ragged", 50, 136}), name_of);

}  // namespace
}  // namespace baton::ops
