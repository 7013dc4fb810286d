// The same request gives the same tokens and, bit for bit, the same log-probabilities, however it
// is cut into steps and whatever stands beside it.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/engine/driver.h"
#include "tests/fakes/quick_start_model.h"
#include "tests/model/goldens.h"

namespace baton::engine {
namespace {

using model::TestOptions;

constexpr uint32_t kWhole = 320;  // a chunk that takes any prompt here at once

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

// The log-probabilities are of a softmax over all logits, so a bit of any of them shows.
bool same(const ops::SampleResult& a, const ops::SampleResult& b) {
  if (a.token != b.token || !same_bits(a.logprob, b.logprob) || a.num_top != b.num_top)
    return false;
  for (uint32_t i = 0; i < a.num_top; ++i) {
    if (a.top[i].token != b.top[i].token || !same_bits(a.top[i].logprob, b.top[i].logprob)) {
      return false;
    }
  }
  return true;
}

void expect_same(const Job& expected, const Job& actual, const std::string& what) {
  ASSERT_EQ(expected.drawn.size(), actual.drawn.size()) << what;
  for (size_t i = 0; i < expected.drawn.size(); ++i) {
    ASSERT_TRUE(same(expected.drawn[i], actual.drawn[i]))
        << what << ": token " << i << " is " << actual.drawn[i].token << " with "
        << actual.drawn[i].logprob << ", not " << expected.drawn[i].token << " with "
        << expected.drawn[i].logprob;
  }
}

struct Case {
  std::string name;
  bool quick_start = false;
  DType dtype = DType::kBF16;
};

class SameTokens : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!model::gives_same_bits()) GTEST_SKIP() << "only deterministic operations promise it";
    path_ = GetParam().quick_start ? fakes::quick_start_model() : model::data_dir() / "llama3";
    if (path_.empty()) GTEST_SKIP();
    goldens_ = model::read_goldens(GetParam().quick_start
                                       ? model::data_dir() / "smollm2_135m_instruct.json"
                                       : path_ / "goldens.json");
    const ops::SamplingParams sampled = {.temperature = 0.9f,
                                         .top_k = 50,
                                         .top_p = 0.95f,
                                         .repetition_penalty = 1.1f,
                                         .frequency_penalty = 0.2f,
                                         .seed = 1234,
                                         .logprobs = 20,
                                         .want_logprobs = true};
    jobs_.push_back({.prompt = prompt(0, 270), .max_tokens = 12, .params = sampled});
    // Log-probabilities are of the logits before sampling: one job shows a big model's bits.
    if (!GetParam().quick_start) jobs_.push_back({.prompt = prompt(0, 270), .max_tokens = 12});
    Driver alone = driver({});
    for (Job& job : jobs_) alone.run(job, kWhole);
  }

  // Real text, from the n-th golden on. 270 tokens are more than an attention tile.
  std::vector<TokenId> prompt(size_t n, size_t tokens) const {
    std::vector<TokenId> text;
    for (size_t i = n; text.size() < tokens; ++i) {
      const auto more = goldens_[i % goldens_.size()].tokens();
      text.insert(text.end(), more.begin(), more.end());
    }
    text.resize(tokens);
    return text;
  }

  Driver driver(TestOptions options) const {
    options.weights = options.cache = GetParam().dtype;
    options.num_blocks = 512;
    options.max_rows = kWhole;
    return Driver(path_, {.model = options});
  }

  static Job anew(const Job& job) {
    return {.prompt = job.prompt, .max_tokens = job.max_tokens, .params = job.params};
  }

  void expect_same_with(Driver& d, uint32_t chunk, const std::string& what) {
    for (const Job& expected : jobs_) {
      Job job = anew(expected);
      d.run(job, chunk);
      expect_same(expected, job, what);
    }
  }

  std::filesystem::path path_;
  std::vector<model::Golden> goldens_;
  std::vector<Job> jobs_;  // with what they draw alone, their prompt in one chunk
};

TEST_P(SameTokens, InChunks) {
  Driver d = driver({});
  for (const uint32_t chunk : {16u, 64u, 7u}) {
    expect_same_with(d, chunk, "chunks of " + std::to_string(chunk));
  }
}

TEST_P(SameTokens, OnOneThread) {
  Driver d = driver({.threads = 1});
  expect_same_with(d, kWhole, "one thread");
}

TEST_P(SameTokens, InBlocksOf32) {
  Driver d = driver({.block_tokens = 32});
  expect_same_with(d, 64, "blocks of 32");
}

TEST_P(SameTokens, Among15Others) {
  Driver d = driver({});
  for (const Job& expected : jobs_) {
    std::vector<Job> jobs(16);
    for (uint32_t i = 0; i < jobs.size(); ++i) {
      jobs[i] = {.prompt = prompt(i, 20 + 3 * i), .max_tokens = 16, .start_step = i / 3};
      jobs[i].params.temperature = i % 2 == 0 ? 0.0f : 1.0f;
      jobs[i].params.seed = i;
    }
    jobs[5] = anew(expected);
    d.run(jobs, 64);
    expect_same(expected, jobs[5], "among others");
  }
}

TEST_P(SameTokens, WithACachedPrefix) {
  Driver d = driver({});
  Job first = {.prompt = jobs_[0].prompt, .max_tokens = 1};
  d.run(first, kWhole);
  for (const uint32_t blocks : {9u, 16u}) {
    for (const Job& expected : jobs_) {
      Job job = anew(expected);
      job.cached.assign(first.table.begin(), first.table.begin() + blocks);
      d.run(job, 64);
      expect_same(expected, job, std::to_string(blocks) + " blocks cached");
    }
  }
}

// A preempted choice comes back with the tokens it had drawn, its cache computed anew.
TEST_P(SameTokens, Resumed) {
  Driver d = driver({});
  for (const Job& expected : jobs_) {
    Job job = anew(expected);
    job.max_tokens = 7;
    for (size_t i = 0; i < 5; ++i) job.drawn_before.push_back(expected.drawn[i].token);
    d.run(job, 64);
    for (size_t i = 0; i < 7; ++i) {
      ASSERT_TRUE(same(expected.drawn[i + 5], job.drawn[i])) << "token " << i + 5;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SameTokens,
                         testing::Values(Case{.name = "Tiny"},
                                         Case{.name = "TinyFloat32", .dtype = DType::kF32},
                                         Case{.name = "QuickStart", .quick_start = true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baton::engine
