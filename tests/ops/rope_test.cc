#include "tests/ops/cache_testing.h"

namespace baton::ops {
namespace {

std::vector<float> frequencies(uint32_t head_dim) {
  std::vector<float> f(head_dim / 2);
  for (uint32_t i = 0; i < f.size(); ++i) {
    f[i] = static_cast<float>(std::pow(10000.0, -2.0 * i / head_dim));
  }
  return f;
}

// Position `p` of one head in double: normed where a weight is given, then rotated.
std::vector<double> rotated(const float* x, const float* weight, float eps, uint32_t head_dim,
                            const std::vector<float>& freq, uint32_t p) {
  double sum = 0;
  for (uint32_t i = 0; i < head_dim; ++i) sum += static_cast<double>(x[i]) * x[i];
  std::vector<double> v(head_dim), out(head_dim);
  for (uint32_t i = 0; i < head_dim; ++i) {
    v[i] = weight == nullptr ? x[i] : x[i] / std::sqrt(sum / head_dim + eps) * weight[i];
  }
  const uint32_t half = head_dim / 2;
  for (uint32_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(p) * freq[i];
    out[i] = v[i] * std::cos(angle) - v[i + half] * std::sin(angle);
    out[i + half] = v[i + half] * std::cos(angle) + v[i] * std::sin(angle);
  }
  return out;
}

struct Case {
  CacheShape shape;
  bool norms;
};

class RopeShapes : public testing::TestWithParam<Case> {};

TEST_P(RopeShapes, RotatesAndWritesTheCache) {
  const auto [shape, norms] = GetParam();
  Random random(1);
  const Ops ops = cpu_ops();
  Cpu cpu(2);
  const std::vector<uint32_t> lengths = {40, 300, 1}, rows = {40, 33, 1};
  Cache cache(random, shape, lengths);
  std::vector<SequenceRows> sequences;
  std::vector<uint32_t> positions;
  for (size_t s = 0; s < lengths.size(); ++s) {
    sequences.push_back(
        {static_cast<uint32_t>(positions.size()), rows[s], lengths[s] - rows[s], cache.table(s)});
    for (uint32_t r = 0; r < rows[s]; ++r) positions.push_back(lengths[s] - rows[s] + r);
  }
  const auto total = static_cast<int64_t>(positions.size());
  const uint32_t d = shape.head_dim;
  const auto freq = frequencies(d);
  MatrixF cos(total, d / 2), sin(total, d / 2), q_out(total, shape.heads * d);
  MatrixF qkv = random_matrix(random, total, (shape.heads + 2 * shape.kv_heads) * d);
  const MatrixF q_norm = random_matrix(random, 1, d), k_norm = random_matrix(random, 1, d);
  const float* q_weight = norms ? q_norm.data.data() : nullptr;
  const float* k_weight = norms ? k_norm.data.data() : nullptr;
  ops.rope_angles(*cpu.stream, positions, freq, cos.tensor(), sin.tensor());
  ops.rope_and_write_kv(*cpu.stream, {.qkv = qkv.tensor(),
                                      .cos = cos.tensor(),
                                      .sin = sin.tensor(),
                                      .q_norm = q_weight,
                                      .k_norm = k_weight,
                                      .norm_eps = 1e-6f,
                                      .num_heads = shape.heads,
                                      .sequences = Sequences::on_host(sequences),
                                      .kv = cache.kv(),
                                      .q_out = q_out.tensor()});
  const double rounding = shape.dtype == DType::kBF16 ? 1.0 / 256 : 1e-6;
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (uint32_t r = 0; r < rows[s]; ++r) {
      const uint32_t row = sequences[s].first_row + r, p = sequences[s].position + r;
      for (uint32_t h = 0; h < shape.heads; ++h) {
        const auto expected = rotated(qkv.row(row) + h * d, q_weight, 1e-6f, d, freq, p);
        for (uint32_t i = 0; i < d; ++i) ASSERT_NEAR(q_out.at(row, h * d + i), expected[i], 2e-5);
      }
      for (uint32_t h = 0; h < shape.kv_heads; ++h) {
        const float* k = qkv.row(row) + (shape.heads + h) * d;
        const float* v = k + shape.kv_heads * d;
        const auto expected = rotated(k, k_weight, 1e-6f, d, freq, p);
        for (uint32_t i = 0; i < d; ++i) {
          ASSERT_NEAR(cache.get(s, 0, h, p, i), expected[i],
                      2e-5 + rounding * std::abs(expected[i]));
          const float value = shape.dtype == DType::kBF16 ? bf16_to_f32(f32_to_bf16(v[i])) : v[i];
          ASSERT_EQ(cache.get(s, 1, h, p, i), value);
        }
      }
    }
  }
  // What was before the rows, and behind them, is still untouched.
  EXPECT_TRUE(std::isnan(cache.get(1, 0, 0, 266, 0)));
}

INSTANTIATE_TEST_SUITE_P(All, RopeShapes,
                         testing::Values(Case{{9, 3, 64, 16, DType::kBF16}, false},
                                         Case{{4, 2, 80, 32, DType::kF32}, false},
                                         Case{{4, 2, 128, 64, DType::kBF16}, true},
                                         Case{{2, 2, 16, 256, DType::kF32}, true}));

TEST(Rope, CacheRoundsToNearestEvenAndKeepsNaN) {
  Random random(2);
  const CacheShape shape = {1, 1, 16, 16, DType::kBF16};
  Cache cache(random, shape, {1});
  const Ops ops = cpu_ops();
  Cpu cpu(1);
  const float nan = std::nanf("");
  const float values[16] = {1.0f,  1.00390625f, 1.01171875f, -1.00390625f, 3.4028235e38f, 1e-40f,
                            -0.0f, nan,         INFINITY,    -INFINITY,    65504.0f,      0.1f,
                            -0.3f, 1.0000001f,  2.9999998f,  123456.789f};
  MatrixF qkv(1, 48), cos(1, 8), sin(1, 8), q_out(1, 16);
  std::copy_n(values, 16, qkv.row(0) + 32);
  std::fill(cos.data.begin(), cos.data.end(), 1.0f);
  const SequenceRows seq = {0, 1, 0, cache.table(0)};
  ops.rope_and_write_kv(*cpu.stream, {.qkv = qkv.tensor(),
                                      .cos = cos.tensor(),
                                      .sin = sin.tensor(),
                                      .num_heads = 1,
                                      .sequences = Sequences::on_host({&seq, 1}),
                                      .kv = cache.kv(),
                                      .q_out = q_out.tensor()});
  for (uint32_t i = 0; i < 16; ++i) {
    const float stored = cache.get(0, 1, 0, 0, i);
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(stored));
    } else {
      EXPECT_EQ(stored, bf16_to_f32(f32_to_bf16(values[i]))) << values[i];
    }
  }
}

TEST(Rope, AnglesOfFarPositionsAreExact) {
  const Ops ops = cpu_ops();
  Cpu cpu(3);
  const std::vector<float> freq = {1.0f, 0.1f, 1e-4f};
  std::vector<uint32_t> positions;
  for (uint32_t p = 0; p < 1000; ++p) positions.push_back(p * 131);
  MatrixF cos(1000, 3), sin(1000, 3);
  ops.rope_angles(*cpu.stream, positions, freq, cos.tensor(), sin.tensor());
  for (uint32_t p = 0; p < 1000; ++p) {
    for (uint32_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(positions[p]) * freq[i];
      ASSERT_EQ(cos.at(p, i), static_cast<float>(std::cos(angle)));
      ASSERT_EQ(sin.at(p, i), static_cast<float>(std::sin(angle)));
    }
  }
}

}  // namespace
}  // namespace baton::ops
