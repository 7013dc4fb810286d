#include <algorithm>
#include <limits>
#include <numeric>

#include "common/ops/philox.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

class Sample : public testing::Test {
 protected:
  // One row from these logits.
  SampleResult sample(std::vector<float> logits, SampleRow row) {
    if (row.params == nullptr) row.params = &params_;
    Tensor t = Tensor::matrix(logits.data(), DType::kF32, 1, static_cast<int64_t>(logits.size()));
    SampleResult result;
    ops_.sample(*cpu_.stream, t, {&row, 1}, {&result, 1});
    return result;
  }
  TokenId token(const std::vector<float>& logits, const SampleRow& row = {}) {
    return sample(logits, row).token;
  }

  Ops ops_ = cpu_ops();
  Cpu cpu_{1};
  SamplingParams params_;
};

// What may be drawn and how likely it is, by sorting everything in double.
struct Reference {
  std::vector<TokenId> tokens;  // likeliest first
  std::vector<double> upper;    // cumulative probability up to and with each
};

Reference reference(const std::vector<float>& x, const SamplingParams& p) {
  const float max = *std::max_element(x.begin(), x.end());
  std::vector<double> w(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    w[i] = std::exp((static_cast<double>(x[i]) - max) / p.temperature);
  }
  Reference r;
  r.tokens.resize(x.size());
  std::iota(r.tokens.begin(), r.tokens.end(), 0);
  std::stable_sort(r.tokens.begin(), r.tokens.end(), [&](int a, int b) { return w[a] > w[b]; });
  std::erase_if(r.tokens, [&](int t) { return w[t] < p.min_p; });
  if (p.top_k > 0 && r.tokens.size() > p.top_k) r.tokens.resize(p.top_k);
  const auto cumulate = [&] {
    r.upper.clear();
    double sum = 0;
    for (const TokenId t : r.tokens) r.upper.push_back(sum += w[t]);
    for (double& u : r.upper) u /= sum;
  };
  cumulate();
  if (p.top_p < 1) {
    size_t keep = 1;
    while (keep < r.tokens.size() && r.upper[keep - 1] < p.top_p) ++keep;
    r.tokens.resize(keep);
    cumulate();
  }
  return r;
}

// Whether `token` is what the uniform number `u` picks, but for rounding.
testing::AssertionResult picks(const Reference& r, double u, TokenId token) {
  const auto at = std::find(r.tokens.begin(), r.tokens.end(), token) - r.tokens.begin();
  if (static_cast<size_t>(at) == r.tokens.size()) {
    return testing::AssertionFailure() << token << " is filtered out";
  }
  const double low = at == 0 ? 0 : r.upper[at - 1], high = r.upper[at];
  if (u >= low - 1e-6 && u <= high + 1e-6) return testing::AssertionSuccess();
  return testing::AssertionFailure() << u << " is outside [" << low << ", " << high << "]";
}

double uniform_of(const SamplingParams& p, const SampleRow& row) {
  return static_cast<double>(draw_bits(p.seed, row.choice, row.position, 0)) * 0x1p-64;
}

TEST_F(Sample, GreedyTakesTheLargestAndOfEqualsTheLowestId) {
  params_.temperature = 0;
  EXPECT_EQ(token({1, 5, 3}), 1);
  EXPECT_EQ(token({1, 5, 3, 5, 5}), 1);
  EXPECT_EQ(token(std::vector<float>(1000, 0.5f)), 0);
  std::vector<float> late(1003, -1);
  late[1002] = 0;
  EXPECT_EQ(token(late), 1002);
  params_.temperature = 1e-6f;
  EXPECT_EQ(token({1, 5, 3}), 1);
}

TEST_F(Sample, NoLogitIsTooStrange) {
  for (const float temperature : {0.0f, 1.0f}) {
    params_.temperature = temperature;
    params_.want_logprobs = true;
    params_.logprobs = 3;
    EXPECT_EQ(token({kNaN, kNaN, 2, kNaN}), 2);
    EXPECT_EQ(token({kNaN, kNaN}), 0);
    EXPECT_EQ(token({-kInf, -kInf, -kInf}), 0);
    EXPECT_EQ(token({0, kInf, kNaN, kInf}), 1);
    EXPECT_EQ(token({-kInf, -3, -kInf}), 1);
    EXPECT_EQ(token({7}), 0);
    const SampleResult r = sample({kNaN, 1, -kInf}, {});
    EXPECT_EQ(r.token, 1);
    EXPECT_FLOAT_EQ(r.logprob, 0);
    ASSERT_EQ(r.num_top, 3u);
    EXPECT_EQ(r.top[1].logprob, kMinLogprob);
  }
}

TEST_F(Sample, BiasPenaltiesAndBansComeInOrder) {
  params_.temperature = 0;
  const LogitBias bias[] = {{2, 3.5f}, {99, 1.0f}, {-1, 1.0f}};  // ids out of range are ignored
  EXPECT_EQ(token({1, 4, 1}, {.logit_bias = bias}), 2);
  const TokenCount counts[] = {{1, 1, 0}, {0, 0, 3}, {77, 1, 1}};
  // The repetition penalty divides what is positive and multiplies what is negative.
  params_.repetition_penalty = 2;
  EXPECT_EQ(token({1.9f, 4, 2.1f}, {.counts = counts}), 2);
  EXPECT_EQ(token({-9, -4, -7}, {.counts = counts}), 2);
  // The bias is applied before it: (1 + 3.5) / 2 < 2.4.
  const TokenCount third[] = {{2, 0, 1}};
  EXPECT_EQ(token({2.4f, 0, 1}, {.logit_bias = bias, .counts = third}), 0);
  // Presence and frequency are of the output alone: 0 stands in it three times, 1 not at all.
  params_.repetition_penalty = 1;
  params_.presence_penalty = 1;
  EXPECT_EQ(token({4.9f, 4, 0}, {.counts = counts}), 1);
  params_.presence_penalty = 0;
  params_.frequency_penalty = 0.5f;
  EXPECT_EQ(token({5.4f, 4, 0}, {.counts = counts}), 1);
  EXPECT_EQ(token({5.6f, 4, 0}, {.counts = counts}), 0);
}

TEST_F(Sample, BansHoldUntilMinTokens) {
  params_.temperature = 0;
  params_.min_tokens = 3;
  const TokenId banned[] = {1, 500};
  for (uint32_t n = 0; n < 5; ++n) {
    const TokenId got = token({1, 9, 2}, {.banned_until_min = banned, .output_tokens = n});
    EXPECT_EQ(got, n < 3 ? 2 : 1);
  }
}

TEST_F(Sample, FiltersNarrowToTheLikeliest) {
  const std::vector<float> x = {0, 3, 1, 3, 2.5f};
  for (uint32_t position = 0; position < 50; ++position) {
    params_ = {.temperature = 5.0f, .top_k = 1, .seed = 3};
    EXPECT_EQ(token(x, {.position = position}), 1);
    params_ = {.temperature = 5.0f, .top_p = 1e-9f, .seed = 3};
    EXPECT_EQ(token(x, {.position = position}), 1);
    params_ = {.temperature = 5.0f, .top_k = 2, .seed = 3};
    const TokenId two = token(x, {.position = position});
    EXPECT_TRUE(two == 1 || two == 3);
    params_ = {.temperature = 5.0f, .min_p = 1.0f, .seed = 3};
    const TokenId best = token(x, {.position = position});
    EXPECT_TRUE(best == 1 || best == 3);
    params_ = {.temperature = 1.0f, .top_k = 1000, .top_p = 1.0f, .seed = 3};
    EXPECT_GE(token(x, {.position = position}), 0);
  }
}

TEST_F(Sample, TopPCountsWhatTopKLeft) {
  // Probabilities 0.5, 0.3, 0.2; top_k 2 leaves 0.625 and 0.375, of which top_p 0.6 keeps one.
  const std::vector<float> x = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  std::vector<int> seen(3);
  for (uint32_t position = 0; position < 200; ++position) {
    params_ = {.top_k = 2, .top_p = 0.6f};
    ++seen[token(x, {.position = position})];
  }
  EXPECT_EQ(seen, (std::vector<int>{200, 0, 0}));
  std::fill(seen.begin(), seen.end(), 0);
  for (uint32_t position = 0; position < 200; ++position) {
    params_ = {.top_p = 0.6f};
    ++seen[token(x, {.position = position})];
  }
  EXPECT_GT(seen[0], 0);
  EXPECT_GT(seen[1], 0);
  EXPECT_EQ(seen[2], 0);
}

TEST_F(Sample, AgreesWithSortingEverything) {
  Random random(11);
  for (int trial = 0; trial < 600; ++trial) {
    const auto vocab = static_cast<size_t>(pick(random, 1, trial % 10 == 0 ? 5000 : 300));
    const float spread = uniform(random, 0.0f, 8.0f);
    std::vector<float> x(vocab);
    for (float& v : x) v = std::normal_distribution<float>(0, 1)(random) * spread;
    if (trial % 7 == 0) std::fill(x.begin(), x.end(), 1.25f);  // all alike
    if (trial % 5 == 0) {
      for (float& v : x) v = std::round(v);  // many ties
    }
    params_ = {.temperature = uniform(random, 0.05f, 3.0f), .seed = random()};
    if (pick(random, 0, 1)) params_.top_k = static_cast<uint32_t>(pick(random, 1, 400));
    if (pick(random, 0, 1)) params_.top_p = uniform(random, 0.01f, 1.0f);
    if (pick(random, 0, 2) == 0) params_.min_p = uniform(random, 0.0f, 1.0f);
    const Reference expected = reference(x, params_);
    for (uint32_t n = 0; n < 20; ++n) {
      const SampleRow row = {.choice = n % 3, .position = n};
      const SampleRow with = {.params = &params_, .choice = n % 3, .position = n};
      ASSERT_TRUE(picks(expected, uniform_of(params_, row), token(x, with))) << "trial " << trial;
    }
  }
}

TEST_F(Sample, FrequenciesAreTheProbabilities) {
  const std::vector<double> p = {0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.03, 0.015, 0.005};
  std::vector<float> x;
  for (const double v : p) x.push_back(static_cast<float>(std::log(v)) + 4.0f);
  constexpr int kDraws = 40000;
  std::vector<int> count(p.size());
  for (int i = 0; i < kDraws; ++i) {
    params_ = {.seed = static_cast<uint64_t>(i % 7)};
    ++count[token(x,
                  {.choice = static_cast<uint32_t>(i % 2), .position = static_cast<uint32_t>(i)})];
  }
  double chi_square = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    chi_square += std::pow(count[i] - p[i] * kDraws, 2) / (p[i] * kDraws);
  }
  EXPECT_LT(chi_square, 27.9);  // 9 degrees of freedom, p = 0.001; the seeds are fixed
}

TEST_F(Sample, LogprobsAreOfTheRawLogits) {
  const std::vector<float> x = {0.5f, 2, -1, 2, 3, -40};
  double sum = 0;
  for (const float v : x) sum += std::exp(static_cast<double>(v));
  const LogitBias bias[] = {{2, 100.0f}};
  params_ = {.temperature = 0, .logprobs = 4, .want_logprobs = true};
  const SampleResult r = sample(x, {.logit_bias = bias});
  EXPECT_EQ(r.token, 2);
  EXPECT_NEAR(r.logprob, -1 - std::log(sum), 1e-5);
  ASSERT_EQ(r.num_top, 4u);
  const TokenId order[] = {4, 1, 3, 0};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(r.top[i].token, order[i]);
    EXPECT_NEAR(r.top[i].logprob, x[order[i]] - std::log(sum), 1e-5);
  }
}

TEST_F(Sample, ScoreGivesTheSameLogprobsAndLeavesTheLogits) {
  Random random(12);
  MatrixF logits = random_matrix(random, 5, 1001, 3.0f);
  const MatrixF before = logits;
  const std::vector<TokenId> tokens = {0, 1000, 17, 500, 3};
  std::vector<SampleResult> scores(5);
  ops_.score(*cpu_.stream, logits.tensor(), tokens, 7, scores);
  expect_same_bits(logits.data.data(), before.data.data(), logits.data.size(), "logits");
  for (size_t i = 0; i < tokens.size(); ++i) {
    const float* x = before.data.data() + i * 1001;
    double sum = 0;
    for (int t = 0; t < 1001; ++t) sum += std::exp(static_cast<double>(x[t]));
    EXPECT_EQ(scores[i].token, tokens[i]);
    EXPECT_NEAR(scores[i].logprob, x[tokens[i]] - std::log(sum), 1e-5);
    ASSERT_EQ(scores[i].num_top, 7u);
    std::vector<float> sorted(x, x + 1001);
    std::sort(sorted.rbegin(), sorted.rend());
    for (int t = 0; t < 7; ++t) {
      EXPECT_EQ(x[scores[i].top[t].token], sorted[t]);
      EXPECT_NEAR(scores[i].top[t].logprob, sorted[t] - std::log(sum), 1e-5);
    }
    params_ = {.temperature = 0, .logprobs = 7, .want_logprobs = true};
    const LogitBias force[] = {{tokens[i], 1000.0f}};
    const SampleResult drawn = sample(std::vector<float>(x, x + 1001), {.logit_bias = force});
    EXPECT_EQ(drawn.logprob, scores[i].logprob);
  }
}

TEST_F(Sample, ResultDependsOnTheRowAlone) {
  Random random(13);
  const int64_t rows = 24, vocab = 3001;
  const MatrixF logits = random_matrix(random, rows, vocab, 2.0f);
  std::vector<SamplingParams> params(rows);
  std::vector<SampleRow> batch(rows);
  for (int64_t i = 0; i < rows; ++i) {
    params[i] = {.temperature = uniform(random, 0.3f, 2.0f),
                 .top_k = static_cast<uint32_t>(pick(random, 0, 50)),
                 .top_p = uniform(random, 0.5f, 1.0f),
                 .seed = random(),
                 .logprobs = static_cast<uint32_t>(i % 4),
                 .want_logprobs = i % 3 == 0};
    batch[i] = {.logits_row = static_cast<uint32_t>(rows - 1 - i),
                .params = &params[i],
                .position = static_cast<uint32_t>(i)};
  }
  std::vector<SampleResult> alone(rows);
  for (int64_t i = 0; i < rows; ++i) {
    MatrixF copy = logits;
    ops_.sample(*cpu_.stream, copy.tensor(), {&batch[i], 1}, {&alone[i], 1});
  }
  for (const unsigned threads : {1u, 2u, 3u}) {
    Cpu cpu(threads);
    MatrixF copy = logits;
    std::vector<SampleResult> together(rows);
    ops_.sample(*cpu.stream, copy.tensor(), batch, together);
    for (int64_t i = 0; i < rows; ++i) {
      ASSERT_EQ(together[i].token, alone[i].token);
      ASSERT_EQ(together[i].logprob, alone[i].logprob);
      ASSERT_EQ(together[i].num_top, alone[i].num_top);
    }
  }
}

}  // namespace
}  // namespace baton::ops
