#include "common/engine/step_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::engine {
namespace {

using model::ModelUnderTest;
using testing::ElementsAre;

class Layers final : public StepObserver {
 public:
  void on_layer(StepBatch& batch, uint32_t layer) override {
    layers.push_back(layer);
    digests.push_back(batch.sequences[0].digests);
  }
  std::vector<uint32_t> layers;
  std::vector<std::vector<uint64_t>> digests;  // as they stood at each layer
};

// The CPU, saying that it runs behind the host, as a GPU does.
class BehindTheHost final : public device::Device {
 public:
  explicit BehindTheHost(device::Device& device) : device_(device), info_(device.info()) {
    info_.runs_inline = false;
  }
  const device::DeviceInfo& info() const override { return info_; }
  result<device::Buffer> allocate(size_t bytes) override { return device_.allocate(bytes); }
  result<device::Buffer> allocate_host(size_t bytes) override { return allocate(bytes); }
  result<device::Buffer> lock_host(void*, size_t) override { return device::Buffer(); }
  std::unique_ptr<device::Stream> make_stream() override { return device_.make_stream(); }
  void enter_thread() override { device_.enter_thread(); }
  void copy(device::Stream& s, void* to, const void* from, size_t bytes) override {
    device_.copy(s, to, from, bytes);
  }

 private:
  device::Device& device_;
  device::DeviceInfo info_;
};

const StepLimits kLimits = {128, 8, 8, 1024};

std::unique_ptr<StepRunner> make_runner(ModelUnderTest& m) {
  return StepRunner::create(m.model(), {m.cache(), m.host_cache()}, m.device(), m.ops(), kLimits)
      .value();
}

std::vector<TokenId> some_tokens(uint32_t count) {
  std::vector<TokenId> tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(i * 31 % 310));
  return tokens;
}

// Rows [begin, end) of a prompt, scored.
void score(StepRunner& runner, const std::vector<TokenId>& prompt, uint32_t begin, uint32_t end,
           std::vector<ops::SampleResult>* scores) {
  StepBatch batch;
  StepSequence& s = batch.add_sequence();
  s.position = begin;
  s.num_rows = end - begin;
  s.tokens.assign(prompt.begin() + begin, prompt.begin() + end);
  s.block_table = ModelUnderTest::blocks(0, 8);
  s.prompt_logprobs = 3;
  const uint32_t known = std::min<uint32_t>(end + 1, static_cast<uint32_t>(prompt.size()));
  s.next_tokens.assign(prompt.begin() + begin + 1, prompt.begin() + known);
  batch.opens.push_back({.slot = SlotId{0}, .params = {.temperature = 0}});
  batch.samples.push_back({.sequence = 0, .slot = SlotId{0}});
  Layers nobody;
  runner.run(batch, nobody);
  scores->insert(scores->end(), batch.sequences[0].scores.begin(), batch.sequences[0].scores.end());
  EXPECT_EQ(batch.samples[0].result.token, batch.sequences[0].scores.back().top[0].token)
      << "greedy draws the likeliest of the last row";
}

// Logits of a few rows at a time, or of all, and a prompt in one step or three: the same scores.
TEST(StepRunner, PromptScoresDoNotDependOnHowTheyAreCut) {
  const std::vector<TokenId> prompt = some_tokens(101);
  std::vector<ops::SampleResult> all, cut;
  {
    ModelUnderTest m(model::data_dir() / "llama3", {});
    score(*make_runner(m), prompt, 0, 100, &all);
  }
  ModelUnderTest m(model::data_dir() / "llama3", {.max_logit_bytes = 7 * 320 * sizeof(float)});
  ASSERT_EQ(m.model().max_logit_rows(), 7u);
  const auto runner = make_runner(m);
  for (const auto& [begin, end] : {std::pair{0u, 33u}, {33u, 40u}, {40u, 100u}}) {
    score(*runner, prompt, begin, end, &cut);
  }
  ASSERT_EQ(all.size(), 100u);
  ASSERT_EQ(cut.size(), 100u);
  for (size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(all[i].token, prompt[i + 1]);
    EXPECT_EQ(all[i].logprob, cut[i].logprob) << i;
    ASSERT_EQ(all[i].num_top, 3u);
    EXPECT_EQ(all[i].top[2].token, cut[i].top[2].token) << i;
    EXPECT_LE(all[i].logprob, all[i].top[0].logprob);
  }
}

// The last row's next token is not known: it is sampled, not scored.
TEST(StepRunner, ScoresAsFarAsNextTokensAreKnown) {
  ModelUnderTest m(model::data_dir() / "llama3", {});
  StepBatch batch;
  StepSequence& s = batch.add_sequence();
  s.num_rows = 10;
  s.tokens = some_tokens(10);
  s.block_table = ModelUnderTest::blocks(0, 1);
  s.prompt_logprobs = 0;
  s.next_tokens.assign(s.tokens.begin() + 1, s.tokens.end());
  batch.opens.push_back({.slot = SlotId{4}, .params = {.temperature = 0, .want_logprobs = true}});
  batch.samples.push_back({.sequence = 0, .slot = SlotId{4}});
  Layers nobody;
  make_runner(m)->run(batch, nobody);
  EXPECT_EQ(batch.sequences[0].scores.size(), 9u);
  EXPECT_LT(batch.samples[0].result.logprob, 0);
}

StepBatch digested_prompt() {
  StepBatch batch;
  StepSequence& s = batch.add_sequence();
  s.num_rows = 20;
  s.tokens = some_tokens(20);
  s.block_table = ModelUnderTest::blocks(3, 2);
  s.digest = true;
  batch.opens.push_back({.slot = SlotId{0}, .params = {.temperature = 0}});
  batch.samples.push_back({.sequence = 0, .slot = SlotId{0}});
  return batch;
}

TEST(StepRunner, ALayersDigestsAreThereWhenItIsTold) {
  ModelUnderTest m(model::data_dir() / "llama3", {});
  StepBatch batch = digested_prompt();
  Layers told;
  make_runner(m)->run(batch, told);
  EXPECT_THAT(told.layers, ElementsAre(0, 1));
  const auto& end = batch.sequences[0].digests;
  EXPECT_THAT(told.digests[0], ElementsAre(end[0], end[1], 0, 0));
  EXPECT_EQ(told.digests[1], end);
}

TEST(StepRunner, ADeviceBehindTheHostGivesTheSame) {
  if (model::test_on_cuda()) GTEST_SKIP() << "it is one";
  ModelUnderTest m(model::data_dir() / "llama3", {});
  StepBatch inline_batch = digested_prompt(), batch = digested_prompt();
  Layers inline_told, told;
  make_runner(m)->run(inline_batch, inline_told);
  BehindTheHost device(m.device());
  StepRunner::create(m.model(), {m.cache(), m.cache()}, device, m.ops(), kLimits)
      .value()
      ->run(batch, told);
  EXPECT_EQ(told.layers, inline_told.layers);
  EXPECT_EQ(batch.sequences[0].digests, inline_batch.sequences[0].digests);
  EXPECT_EQ(batch.samples[0].result.token, inline_batch.samples[0].result.token);
}

}  // namespace
}  // namespace baton::engine
