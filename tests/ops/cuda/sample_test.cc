#include <limits>

#include "tests/ops/cuda/cuda_testing.h"
#include "tests/ops/cuda/sample_reference.h"

namespace baton::ops {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

class CudaSample : public OnGpu {
 protected:
  // One token for each row.
  std::vector<SampleResult> sample(const MatrixF& logits, std::span<const SampleRow> rows) {
    const DeviceF there(*this, logits);
    const Shared<SampleResult> results(*this, std::vector<SampleResult>(rows.size()));
    fast_.sample(*stream_, there.tensor(), rows, results.get());
    stream_->synchronize();
    return {results.get().begin(), results.get().end()};
  }
  std::vector<SampleResult> cpu_sample(MatrixF logits, std::span<const SampleRow> rows) {
    std::vector<SampleResult> results(rows.size());
    cpu_ops_.sample(*cpu_.stream, logits.tensor(), rows, results);
    return results;
  }
  SampleResult sample_one(const std::vector<float>& x, SampleRow row) {
    if (row.params == nullptr) row.params = &params_;
    MatrixF logits(1, static_cast<int64_t>(x.size()));
    logits.data = x;
    return sample(logits, {&row, 1})[0];
  }
  TokenId token(const std::vector<float>& x, const SampleRow& row = {}) {
    return sample_one(x, row).token;
  }

  void expect_same(const SampleResult& a, const SampleResult& b, bool with_logprobs) {
    EXPECT_EQ(a.token, b.token);
    if (!with_logprobs) return;
    EXPECT_NEAR(a.logprob, b.logprob, 1e-4 * (1 + std::abs(b.logprob)));
    ASSERT_EQ(a.num_top, b.num_top);
    for (uint32_t i = 0; i < a.num_top; ++i) {
      EXPECT_EQ(a.top[i].token, b.top[i].token) << i;
      EXPECT_NEAR(a.top[i].logprob, b.top[i].logprob, 1e-4 * (1 + std::abs(b.top[i].logprob)));
    }
  }

  SamplingParams params_;
};

TEST_F(CudaSample, SmallGreedyTakesTheLargestAndOfEqualsTheLowestId) {
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

TEST_F(CudaSample, SmallNoLogitIsTooStrange) {
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
    const SampleResult r = sample_one({kNaN, 1, -kInf}, {});
    EXPECT_EQ(r.token, 1);
    EXPECT_NEAR(r.logprob, 0, 1e-5);
    ASSERT_EQ(r.num_top, 3u);
    EXPECT_EQ(r.top[1].logprob, kMinLogprob);
  }
}

TEST_F(CudaSample, SmallBiasPenaltiesAndBansComeInOrder) {
  params_.temperature = 0;
  const LogitBias bias[] = {{2, 3.5f}, {99, 1.0f}, {-1, 1.0f}};  // ids out of range are ignored
  EXPECT_EQ(token({1, 4, 1}, {.logit_bias = bias}), 2);
  const TokenCount counts[] = {{1, 1, 0}, {0, 0, 3}, {77, 1, 1}};
  params_.repetition_penalty = 2;
  EXPECT_EQ(token({1.9f, 4, 2.1f}, {.counts = counts}), 2);
  EXPECT_EQ(token({-9, -4, -7}, {.counts = counts}), 2);
  const TokenCount third[] = {{2, 0, 1}};
  EXPECT_EQ(token({2.4f, 0, 1}, {.logit_bias = bias, .counts = third}), 0);
  params_.repetition_penalty = 1;
  params_.presence_penalty = 1;
  EXPECT_EQ(token({4.9f, 4, 0}, {.counts = counts}), 1);
  params_.presence_penalty = 0;
  params_.frequency_penalty = 0.5f;
  EXPECT_EQ(token({5.4f, 4, 0}, {.counts = counts}), 1);
  EXPECT_EQ(token({5.6f, 4, 0}, {.counts = counts}), 0);
  params_ = {.temperature = 0, .min_tokens = 3};
  const TokenId banned[] = {1, 500};
  for (uint32_t n = 0; n < 5; ++n) {
    EXPECT_EQ(token({1, 9, 2}, {.banned_until_min = banned, .output_tokens = n}), n < 3 ? 2 : 1);
  }
}

TEST_F(CudaSample, SmallFiltersNarrowToTheLikeliest) {
  const std::vector<float> x = {0, 3, 1, 3, 2.5f};
  for (uint32_t position = 0; position < 20; ++position) {
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
  }
}

// Greedy, with log-probabilities, over whole vocabularies.
TEST_F(CudaSample, GreedyIsTheCpus) {
  for (const int64_t vocab : {1, 320, 1001, 32000, 49152, 128256, 151936}) {
    Random random(static_cast<uint32_t>(vocab));
    const int64_t rows = vocab > 100000 ? 8 : 20;
    MatrixF logits = random_matrix(random, rows, vocab, 3.0f);
    for (int64_t r = 1; r < rows; r += 3) {
      for (int64_t i = 0; i < vocab; ++i) logits.at(r, i) = std::round(logits.at(r, i));  // ties
    }
    std::vector<SamplingParams> params(rows);
    std::vector<SampleRow> batch;
    for (int64_t r = 0; r < rows; ++r) {
      params[r] = {.temperature = 0,
                   .logprobs = static_cast<uint32_t>(r % 2 == 0 ? kMaxTopLogprobs : r % 5),
                   .want_logprobs = r % 4 != 3};
      batch.push_back({.logits_row = static_cast<uint32_t>(rows - 1 - r), .params = &params[r]});
    }
    const auto got = sample(logits, batch), expected = cpu_sample(logits, batch);
    for (int64_t r = 0; r < rows; ++r) {
      SCOPED_TRACE("vocabulary of " + std::to_string(vocab) + ", row " + std::to_string(r));
      expect_same(got[r], expected[r], params[r].want_logprobs);
    }
  }
}

SamplingParams random_params(Random& random) {
  SamplingParams p = {.temperature = uniform(random, 0.05f, 3.0f), .seed = random()};
  if (pick(random, 0, 1)) p.top_k = static_cast<uint32_t>(pick(random, 1, 400));
  if (pick(random, 0, 1)) p.top_p = uniform(random, 0.01f, 1.0f);
  if (pick(random, 0, 2) == 0) p.min_p = uniform(random, 0.0f, 1.0f);
  return p;
}

// Batches of rows that differ in everything: each draw is what sorting all of it in double picks.
TEST_F(CudaSample, DrawsAgreeWithSortingEverything) {
  Random random(11);
  for (int trial = 0; trial < 40; ++trial) {
    const int64_t rows = 40, vocab = pick(random, 1, trial % 10 == 0 ? 20000 : 1500);
    MatrixF logits = random_matrix(random, rows, vocab, uniform(random, 0.0f, 8.0f));
    if (trial % 7 == 0) std::fill(logits.data.begin(), logits.data.end(), 1.25f);  // all alike
    if (trial % 5 == 0) {
      for (float& v : logits.data) v = std::round(v);  // many ties
    }
    std::vector<SamplingParams> params(rows);
    std::vector<SampleRow> batch;
    for (uint32_t r = 0; r < rows; ++r) {
      params[r] = random_params(random);
      batch.push_back(
          {.logits_row = r, .params = &params[r], .choice = r % 3, .position = 7 * r + 1});
    }
    const auto got = sample(logits, batch);
    for (uint32_t r = 0; r < rows; ++r) {
      ASSERT_TRUE(draws({logits.row(r), static_cast<size_t>(vocab)}, params[r], batch[r].choice,
                        batch[r].position, got[r].token))
          << "trial " << trial << " row " << r;
    }
  }
}

TEST_F(CudaSample, DrawsFromWholeVocabularies) {
  Random random(12);
  const int64_t rows = 32, vocab = 128256;
  const MatrixF logits = random_matrix(random, rows, vocab, 2.0f);
  std::vector<SamplingParams> params(rows);
  std::vector<SampleRow> batch;
  for (uint32_t r = 0; r < rows; ++r) {
    params[r] = random_params(random);
    if (r % 4 == 0) params[r] = {.temperature = 1.0f, .seed = r};  // no filter at all
    if (r % 4 == 1) params[r] = {.temperature = 1.5f, .top_p = 0.95f, .seed = r};
    batch.push_back({.logits_row = r, .params = &params[r], .position = r});
  }
  const auto got = sample(logits, batch);
  for (uint32_t r = 0; r < rows; ++r) {
    const std::span<const float> row(logits.data.data() + r * vocab, vocab);
    EXPECT_TRUE(draws(row, params[r], 0, r, got[r].token)) << "row " << r;
  }
}

TEST_F(CudaSample, FrequenciesAreTheProbabilities) {
  const std::vector<double> p = {0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.03, 0.015, 0.005};
  constexpr uint32_t kRows = 64, kDraws = 20032;
  MatrixF logits(kRows, static_cast<int64_t>(p.size()));
  for (uint32_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < p.size(); ++i) {
      logits.at(r, static_cast<int64_t>(i)) = static_cast<float>(std::log(p[i])) + 4.0f;
    }
  }
  std::vector<int> count(p.size());
  params_ = {.seed = 5};
  for (uint32_t first = 0; first < kDraws; first += kRows) {
    std::vector<SampleRow> batch;
    for (uint32_t r = 0; r < kRows; ++r) {
      batch.push_back({.logits_row = r, .params = &params_, .position = first + r});
    }
    for (const SampleResult& r : sample(logits, batch)) ++count[r.token];
  }
  double chi_square = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    chi_square += std::pow(count[i] - p[i] * kDraws, 2) / (p[i] * kDraws);
  }
  EXPECT_LT(chi_square, 27.9);  // 9 degrees of freedom, p = 0.001; the seed is fixed
}

// Everything at once in rows of one batch; and each row as it is alone.
TEST_F(CudaSample, ResultDependsOnTheRowAlone) {
  Random random(13);
  const int64_t rows = 48, vocab = 3001;
  const MatrixF logits = random_matrix(random, rows, vocab, 2.0f);
  const LogitBias bias[] = {{5, 2.0f}, {3000, -3.0f}, {1700, 4.0f}};
  const TokenCount counts[] = {{5, 1, 2}, {17, 3, 0}, {2999, 0, 1}, {1200, 1, 1}};
  const TokenId banned[] = {0, 3000};
  std::vector<SamplingParams> params(rows);
  std::vector<SampleRow> batch(rows);
  for (int64_t i = 0; i < rows; ++i) {
    params[i] = random_params(random);
    if (i % 6 == 0) params[i].temperature = 0;
    params[i].logprobs = static_cast<uint32_t>(i % 4);
    params[i].want_logprobs = i % 3 == 0;
    batch[i] = {.logits_row = static_cast<uint32_t>(rows - 1 - i),
                .params = &params[i],
                .position = static_cast<uint32_t>(i)};
    if (i % 2 == 0) {
      params[i].repetition_penalty = 1.3f;
      params[i].presence_penalty = 0.4f;
      params[i].frequency_penalty = 0.2f;
      params[i].min_tokens = 4;
      batch[i].logit_bias = bias;
      batch[i].counts = counts;
      batch[i].banned_until_min = banned;
    }
  }
  const auto together = sample(logits, batch), cpu = cpu_sample(logits, batch);
  int differ = 0;
  for (int64_t i = 0; i < rows; ++i) {
    SCOPED_TRACE(i);
    const SampleResult alone = sample(logits, {&batch[i], 1})[0];
    EXPECT_EQ(together[i].token, alone.token);
    if (params[i].want_logprobs) {
      EXPECT_EQ(together[i].logprob, alone.logprob);
    }
    if (params[i].temperature == 0) expect_same(together[i], cpu[i], params[i].want_logprobs);
    differ += together[i].token != cpu[i].token;
  }
  EXPECT_LE(differ, 1);  // a draw at an edge may fall to the other side of the CPU's
}

TEST_F(CudaSample, TheDeviceLearnsTheToken) {
  Random random(14);
  const int64_t rows = 33, vocab = 49152;
  const MatrixF logits = random_matrix(random, rows, vocab, 2.0f);
  std::vector<TokenId> nothing(64, -7);
  const device::Buffer drawn = upload(std::span<const TokenId>(nothing));
  params_ = {.temperature = 0.8f, .top_k = 40, .seed = 1};
  SamplingParams greedy = {.temperature = 0};
  std::vector<SampleRow> batch;
  for (uint32_t r = 0; r < rows; ++r) {
    batch.push_back(
        {.logits_row = r,
         .params = r % 2 == 0 ? &params_ : &greedy,
         .position = r,
         .drawn = r == 7 ? nullptr : reinterpret_cast<TokenId*>(drawn.data()) + (63 - r)});
  }
  const auto results = sample(logits, batch);
  const auto there = download<TokenId>(drawn.data(), 64);
  for (uint32_t i = 0; i < 64; ++i) {
    const uint32_t row = 63 - i;
    const bool written = row < rows && row != 7;
    EXPECT_EQ(there[i], written ? results[row].token : -7) << i;
  }
}

TEST_F(CudaSample, ScoreIsTheCpusAndLeavesTheLogits) {
  for (const int64_t vocab : {320, 1001, 128256}) {
    for (const uint32_t top : {0u, 1u, 7u, kMaxTopLogprobs}) {
      Random random(static_cast<uint32_t>(vocab + top));
      MatrixF logits = random_matrix(random, 9, vocab, 3.0f);
      std::vector<TokenId> some(9);
      for (TokenId& t : some) t = static_cast<TokenId>(pick(random, 0, vocab - 1));
      std::vector<SampleResult> expected(9);
      cpu_ops_.score(*cpu_.stream, logits.tensor(), some, top, expected);
      const DeviceF there(*this, logits);
      const Shared<TokenId> tokens(*this, some);
      const Shared<SampleResult> results(*this, expected);
      for (SampleResult& r : results.get()) r = {};
      fast_.score(*stream_, there.tensor(), tokens.get(), top, results.get());
      expect_same_bits(there.get(), logits, "logits");
      for (size_t i = 0; i < 9; ++i) {
        SCOPED_TRACE("vocabulary of " + std::to_string(vocab) + ", row " + std::to_string(i));
        expect_same(results.get()[i], expected[i], true);
      }
    }
  }
}

TEST_F(CudaSample, NoRowsAreNoWork) {
  const DeviceF logits(*this, 1, 64);
  fast_.sample(*stream_, logits.tensor().slice_rows(0, 0), {}, {});
  fast_.score(*stream_, logits.tensor().slice_rows(0, 0), {}, 3, {});
  logits.get();
}

}  // namespace
}  // namespace baton::ops
