// The engine on a device that runs behind the host, has memory of its own and records: it gives
// what it gives on the CPU, bit for bit, and keeps the device busy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/driver.h"
#include "tests/engine/random_load.h"
#include "tests/fakes/fake_gpu.h"
#include "tests/model/goldens.h"

namespace baton::engine {
namespace {

using device::FakeGpu;
using std::chrono::milliseconds;

model::TestOptions on_cpu(model::TestOptions options) {
  options.backend = [] { return model::cpu_backend(2); };
  return options;
}

model::TestOptions on_fake_gpu(model::TestOptions options, uint64_t seed = 1) {
  options.backend = [seed] {
    auto gpu = std::make_unique<FakeGpu>(seed);
    gpu->set_jitter(std::chrono::microseconds(200));
    return model::Backend{std::move(gpu), ops::fake_gpu_ops()};
  };
  return options;
}

std::vector<TokenId> some_tokens(uint32_t count, uint32_t first = 0) {
  std::vector<TokenId> tokens;
  for (uint32_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<TokenId>((first + i * i * 7 + i) % 310));
  }
  return tokens;
}

// The same engine twice.
struct Pair {
  explicit Pair(const model::TestOptions& options)
      : cpu(model::data_dir() / "llama3", {.model = on_cpu(options)}),
        fake(model::data_dir() / "llama3", {.model = on_fake_gpu(options)}),
        gpu(static_cast<FakeGpu&>(fake.model().device())) {}

  Driver cpu, fake;
  FakeGpu& gpu;
};

void expect_same(const std::vector<Job>& expected, const std::vector<Job>& actual) {
  for (size_t j = 0; j < expected.size(); ++j) {
    ASSERT_EQ(expected[j].drawn.size(), actual[j].drawn.size());
    for (size_t i = 0; i < expected[j].drawn.size(); ++i) {
      ASSERT_TRUE(same_results(expected[j].drawn[i], actual[j].drawn[i]))
          << "job " << j << ", token " << i;
    }
  }
}

class JobsOnBoth : public testing::TestWithParam<DType> {};

TEST_P(JobsOnBoth, DrawTheSame) {
  Pair both({.weights = GetParam(), .cache = GetParam(), .num_blocks = 512, .max_rows = 100});
  both.gpu.set_jitter(std::chrono::microseconds(100));
  std::vector<Job> jobs(16);
  for (uint32_t i = 0; i < jobs.size(); ++i) {
    // Prompts of some rows, and of more than an attention tile.
    jobs[i] = {.prompt = some_tokens(i == 3 ? 300 : 5 + 9 * i, i),
               .max_tokens = 8 + 3 * i,
               .start_step = 2 * i};
    ops::SamplingParams& p = jobs[i].params;
    p.temperature = i % 3 == 0 ? 0.0f : 1.2f;
    p.seed = i;
    if (i % 4 == 1) p.repetition_penalty = 1.3f;
    if (i % 5 == 2) p.frequency_penalty = 0.4f;
  }
  std::vector<Job> again = jobs;
  both.cpu.run(jobs, 40);
  both.fake.run(again, 40);
  expect_same(jobs, again);
  EXPECT_GT(both.gpu.counts().captures, 2u);
  EXPECT_GT(both.gpu.counts().launches, 20u);
}

// A device that refuses to record runs all the same.
TEST_P(JobsOnBoth, DrawTheSameWithoutGraphs) {
  Pair both({.weights = GetParam(), .cache = GetParam()});
  both.gpu.set_captures_fail(true);
  std::vector<Job> jobs(3);
  for (uint32_t i = 0; i < jobs.size(); ++i) jobs[i].prompt = some_tokens(20 * i + 1);
  std::vector<Job> again = jobs;
  both.cpu.run(jobs, 16);
  both.fake.run(again, 16);
  expect_same(jobs, again);
  EXPECT_EQ(both.gpu.counts().launches, 0u);
}

INSTANTIATE_TEST_SUITE_P(Types, JobsOnBoth, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(name(info.param)); });

// No step records anything any more, and each draws what it would have drawn.
TEST(WarmUpTest, RecordsWhatDecodingAsksForAhead) {
  const model::TestOptions options;
  Driver cpu(model::data_dir() / "llama3", {.model = on_cpu(options)});
  Driver fake(model::data_dir() / "llama3",
              {.model = on_fake_gpu(options), .warm_up = {.max_rows = 6, .most = seconds(60)}});
  auto& counts = static_cast<FakeGpu&>(fake.model().device()).counts();
  const uint64_t recorded = counts.captures;
  EXPECT_EQ(recorded, 4u * 3);  // 1, 2, 4 and 8 rows; 256, 512 and 1024 tokens
  std::vector<Job> jobs(6);
  for (uint32_t i = 0; i < jobs.size(); ++i) jobs[i].prompt = some_tokens(60 * i + 1);
  std::vector<Job> again = jobs;
  cpu.run(jobs, 64);
  fake.run(again, 64);
  expect_same(jobs, again);
  EXPECT_EQ(counts.captures, recorded);
  EXPECT_GT(counts.launches, recorded);
}

TEST(WarmUpTest, EndsWithItsTime) {
  for (const auto& [most, ends] : {std::pair{microseconds(0), 0u}, {microseconds(1), 1u}}) {
    Driver fake(model::data_dir() / "llama3",
                {.model = on_fake_gpu({}), .warm_up = {.max_rows = 6, .most = most}});
    // Who is held up for its one microsecond records nothing.
    EXPECT_LE(static_cast<FakeGpu&>(fake.model().device()).counts().captures, ends);
  }
  const Driver cpu(model::data_dir() / "llama3",
                   {.model = on_cpu({}), .warm_up = {.max_rows = 6, .most = seconds(60)}});
}

TEST(RandomLoads, GiveTheSameOnBoth) {
  Pair both({.num_blocks = 160, .max_rows = 48, .max_logit_bytes = 11 * 320 * sizeof(float)});
  uint64_t steps = 0, layers = 0;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    both.gpu.set_jitter(std::chrono::microseconds(seed % 4 == 0 ? 0 : 100));
    const auto expected = run_load(both.cpu, seed), got = run_load(both.fake, seed);
    ASSERT_EQ(expected.size(), got.size()) << "seed " << seed;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_TRUE(same_results(expected[i], got[i])) << "seed " << seed << ", step " << i;
      layers += got[i].layers.size();
    }
    steps += got.size();
  }
  EXPECT_GT(steps, 1500u);
  EXPECT_GT(layers, 500u);
  EXPECT_GT(both.gpu.counts().launches, 100u);
  EXPECT_GT(both.gpu.counts().exports, 500u);
  EXPECT_GT(both.gpu.counts().imports, 20u);
}

// Two steps at most, on an engine whose device can be held.
class RunAhead : public testing::Test {
 protected:
  RunAhead() : both({.num_blocks = 64}) {
    for (Driver* d : {&both.cpu, &both.fake}) {
      StepBatch prompts;
      for (uint32_t i = 0; i < kSequences; ++i) {
        StepSequence& s = prompts.add_sequence();
        s.num_rows = kPrompt;
        s.tokens = some_tokens(kPrompt, i);
        s.block_table = table(i);
        open(prompts, i, i, {.temperature = 1, .seed = i, .want_logprobs = true});
      }
      d->run(prompts);
    }
    before = both.gpu.counts().samples;
  }
  ~RunAhead() override { both.gpu.let_go(); }

  static std::vector<BlockId> table(uint32_t i) { return model::ModelUnderTest::blocks(4 * i, 4); }
  static void open(StepBatch& batch, uint32_t sequence, uint32_t slot, ops::SamplingParams params) {
    batch.opens.push_back({.slot = SlotId{slot},
                           .params = params,
                           .tokens = some_tokens(kPrompt, sequence),
                           .prompt_tokens = kPrompt});
    batch.samples.push_back({.sequence = sequence, .slot = SlotId{slot}});
  }
  // One row for each of these sequences, whose slots have their numbers.
  static void decode(StepBatch& batch, const std::vector<uint32_t>& sequences, uint32_t position) {
    for (const uint32_t i : sequences) {
      StepSequence& s = batch.add_sequence();
      s.position = position;
      s.num_rows = 1;
      s.last_of = SlotId{i};
      s.block_table = table(i);
      batch.samples.push_back(
          {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = SlotId{i}});
    }
  }
  // Runs them on the CPU, one after the other, and expects that the other engine has given the
  // same.
  void expect_as_on_cpu(std::vector<StepBatch>& done, std::vector<StepBatch> again) {
    for (size_t b = 0; b < again.size(); ++b) {
      both.cpu.run(again[b]);
      ASSERT_EQ(again[b].samples.size(), done[b].samples.size());
      for (size_t i = 0; i < again[b].samples.size(); ++i) {
        EXPECT_TRUE(same_results(again[b].samples[i].result, done[b].samples[i].result))
            << "batch " << b << ", sample " << i;
      }
    }
  }
  // Blocks until so many steps have been enqueued in all.
  void wait_until_enqueued(uint64_t steps) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (both.gpu.counts().samples < before + steps) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it is not enqueued";
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
  uint64_t enqueued() const { return both.gpu.counts().samples - before; }
  void expect_done(StepBatch& batch) {
    const EngineEvent event = both.fake.wait();
    EXPECT_EQ(event.kind, EngineEvent::Kind::kStepDone);
    EXPECT_EQ(event.batch, &batch);
  }

  static constexpr uint32_t kSequences = 4, kPrompt = 20;
  Pair both;
  uint64_t before = 0;
};

TEST_F(RunAhead, TheNextStepIsEnqueuedWhileOneRuns) {
  std::vector<StepBatch> batches(4);
  for (uint32_t b = 0; b < batches.size(); ++b) decode(batches[b], {0, 1, 2, 3}, kPrompt + b);
  const std::vector<StepBatch> again = batches;
  both.gpu.hold();
  ASSERT_TRUE(both.fake.engine().submit(&batches[0]));
  wait_until_enqueued(1);
  std::this_thread::sleep_for(milliseconds(5));
  ASSERT_TRUE(both.fake.engine().submit(&batches[1]));
  wait_until_enqueued(2);
  EXPECT_FALSE(both.fake.engine().submit(&batches[2]));
  EXPECT_NE(both.fake.engine().running_for(Clock::now()), std::nullopt);
  both.gpu.let_go();
  expect_done(batches[0]);
  expect_done(batches[1]);
  EXPECT_GT(batches[0].duration, Duration::zero());
  // And when it has become idle, again.
  both.gpu.hold();
  ASSERT_TRUE(both.fake.engine().submit(&batches[2]));
  ASSERT_TRUE(both.fake.engine().submit(&batches[3]));
  wait_until_enqueued(4);
  both.gpu.let_go();
  expect_done(batches[2]);
  expect_done(batches[3]);
  EXPECT_EQ(both.fake.engine().steps_done(), 5u);
  expect_as_on_cpu(batches, again);
}

TEST_F(RunAhead, AStepWhosePenaltiesNeedTokensWaitsForThem) {
  std::vector<StepBatch> batches(3);
  decode(batches[0], {0, 1}, kPrompt);
  StepSequence& s = batches[0].add_sequence();
  s.num_rows = kPrompt;
  s.tokens = some_tokens(kPrompt, 2);
  s.block_table = table(2);
  open(batches[0], 2, 2, {.temperature = 1, .repetition_penalty = 1.5f, .want_logprobs = true});
  decode(batches[1], {0, 2}, kPrompt + 1);
  batches[1].sequences[1].position = kPrompt;
  decode(batches[2], {0, 1, 2}, kPrompt + 2);
  batches[2].sequences[1].position = batches[2].sequences[2].position = kPrompt + 1;
  const std::vector<StepBatch> again = batches;
  both.gpu.hold();
  ASSERT_TRUE(both.fake.engine().submit(&batches[0]));
  ASSERT_TRUE(both.fake.engine().submit(&batches[1]));
  wait_until_enqueued(1);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(enqueued(), 1u);
  both.gpu.let_go();
  expect_done(batches[0]);
  ASSERT_TRUE(both.fake.engine().submit(&batches[2]));
  expect_done(batches[1]);
  expect_done(batches[2]);
  expect_as_on_cpu(batches, again);
}

// The draws that are under way belong to who had the slot then.
TEST_F(RunAhead, ASlotIsOpenedAnewWhileItsDrawIsInFlight) {
  std::vector<StepBatch> batches(4);
  decode(batches[0], {0, 1}, kPrompt);
  StepSequence& s = batches[1].add_sequence();
  s.num_rows = kPrompt;
  s.tokens = some_tokens(kPrompt, 2);
  s.block_table = table(0);
  open(batches[1], 0, 0, {.temperature = 1, .frequency_penalty = 2, .seed = 77});
  // One that comes back with tokens that it had: its row is the last of them.
  decode(batches[1], {1}, kPrompt);
  batches[1].opens.push_back({.slot = SlotId{1},
                              .params = {.temperature = 1, .seed = 78},
                              .tokens = {5, 6, 7},
                              .prompt_tokens = 2});
  decode(batches[2], {0, 1}, kPrompt + 1);
  batches[2].sequences[0].position = kPrompt;
  decode(batches[3], {0, 1}, kPrompt + 2);
  batches[3].sequences[0].position = kPrompt + 1;
  std::vector<StepBatch> again = batches;
  again[1].sequences[1].tokens = {7};
  both.gpu.hold();
  ASSERT_TRUE(both.fake.engine().submit(&batches[0]));
  ASSERT_TRUE(both.fake.engine().submit(&batches[1]));
  wait_until_enqueued(2);
  both.gpu.let_go();
  expect_done(batches[0]);
  both.gpu.hold();
  ASSERT_TRUE(both.fake.engine().submit(&batches[2]));
  both.gpu.let_go();
  expect_done(batches[1]);
  ASSERT_TRUE(both.fake.engine().submit(&batches[3]));
  expect_done(batches[2]);
  expect_done(batches[3]);
  expect_as_on_cpu(batches, again);
}

// What a layer's reader waits for is told while the step computes on.
TEST_F(RunAhead, LayersAreToldAsTheyComeWhileAStepRunsAlone) {
  StepBatch batch;
  StepSequence& s = batch.add_sequence();
  s.num_rows = kPrompt;
  s.tokens = some_tokens(kPrompt, 9);
  s.block_table = table(5);
  s.digest = true;
  both.gpu.hold_at_export(2);
  ASSERT_TRUE(both.fake.engine().submit(&batch));
  EngineEvent event = both.fake.wait();
  EXPECT_EQ(event.kind, EngineEvent::Kind::kLayerDone);
  EXPECT_EQ(event.layer, 0u);
  both.gpu.wait_until_held();
  EXPECT_FALSE(both.fake.engine().poll(event));
  // The next step is enqueued behind it all the same.
  StepBatch next;
  decode(next, {0, 1}, kPrompt);
  ASSERT_TRUE(both.fake.engine().submit(&next));
  wait_until_enqueued(1);
  both.gpu.let_go();
  event = both.fake.wait();
  EXPECT_EQ(event.kind, EngineEvent::Kind::kLayerDone);
  EXPECT_EQ(event.layer, 1u);
  expect_done(batch);
  expect_done(next);
}

// Choices of one prompt fork its last block in the step in which blocks arrive.
TEST_F(RunAhead, CopiesAndArrivalsComeBeforeTheRows) {
  const auto moved = model::ModelUnderTest::blocks(40, 2),
             fork = model::ModelUnderTest::blocks(42, 1);
  for (Driver* d : {&both.cpu, &both.fake}) {
    // Taken out, and put elsewhere as if it had been received.
    StepBatch prompt;
    StepSequence& s = prompt.add_sequence();
    s.num_rows = kPrompt;
    s.tokens = some_tokens(kPrompt, 9);
    s.block_table = table(5);
    s.digest = true;
    d->run(prompt);
    for (uint32_t b = 0; b < 2; ++b) {
      const auto from = d->model().host_cache().block(table(5)[b]);
      std::copy(from.begin(), from.end(), d->model().host_cache().block(moved[b]).begin());
    }
  }
  std::vector<StepBatch> batches(2);
  for (StepBatch& batch : batches) {
    const auto step = static_cast<uint32_t>(&batch - batches.data());
    for (const uint32_t choice : {0u, 1u}) {
      StepSequence& s = batch.add_sequence();
      s.position = kPrompt + step;
      s.num_rows = 1;
      s.last_of = SlotId{6 + choice};
      s.block_table = {moved[0], choice == 0 ? moved[1] : fork[0]};
      batch.samples.push_back({.sequence = choice, .slot = SlotId{6 + choice}});
      if (step > 0) continue;
      s.tokens = {static_cast<TokenId>(100 + choice)};
      batch.opens.push_back({.slot = SlotId{6 + choice},
                             .params = {.temperature = 2, .seed = 3, .want_logprobs = true},
                             .tokens = {1, 2},
                             .prompt_tokens = 1,
                             .choice = choice});
    }
  }
  batches[0].arrived = moved;
  batches[0].block_copies = {{moved[1], fork[0]}};
  const std::vector<StepBatch> again = batches;
  for (StepBatch& batch : batches) ASSERT_TRUE(both.fake.engine().submit(&batch));
  for (StepBatch& batch : batches) expect_done(batch);
  expect_as_on_cpu(batches, again);
}

// Where peers read the device's memory, it takes the digests, and nothing is copied out or in.
TEST(ReadOnDevice, DigestsAreThoseOfTheCpu) {
  const model::TestOptions options;
  Driver cpu(model::data_dir() / "llama3", {.model = on_cpu(options)});
  Driver fake(model::data_dir() / "llama3",
              {.model = on_fake_gpu(options), .is_read_on_device = true});
  auto& gpu = static_cast<FakeGpu&>(fake.model().device());
  std::vector<uint64_t> digests;
  for (Driver* d : {&cpu, &fake}) {
    StepBatch batch;
    StepSequence& s = batch.add_sequence();
    s.num_rows = 40;
    s.tokens = some_tokens(40, 9);
    s.block_table = model::ModelUnderTest::blocks(5, 3);
    s.digest = true;
    if (d == &fake) batch.arrived = model::ModelUnderTest::blocks(20, 2);
    const std::vector<uint32_t> told = d->run(batch);
    EXPECT_EQ(told.size(), d->layout().num_layers());
    const auto& taken = batch.sequences[0].digests;
    ASSERT_EQ(taken.size(), 3 * d->layout().num_layers());
    if (d == &cpu) digests = taken;
    EXPECT_EQ(taken, digests);
  }
  EXPECT_EQ(gpu.counts().exports, fake.layout().num_layers());
  EXPECT_EQ(gpu.counts().imports, 0u);
}

TEST_F(RunAhead, StopFinishesBothStepsInFlight) {
  std::vector<StepBatch> batches(2);
  for (uint32_t b = 0; b < 2; ++b) decode(batches[b], {0, 1, 2, 3}, kPrompt + b);
  const std::vector<StepBatch> again = batches;
  both.gpu.hold();
  for (StepBatch& b : batches) ASSERT_TRUE(both.fake.engine().submit(&b));
  wait_until_enqueued(2);
  auto stopped = std::async(std::launch::async, [&] { both.fake.engine().stop(); });
  EXPECT_EQ(stopped.wait_for(milliseconds(20)), std::future_status::timeout);
  both.gpu.let_go();
  stopped.get();
  EXPECT_EQ(both.fake.engine().steps_done(), 3u);
  EngineEvent event;
  for (StepBatch& b : batches) {
    ASSERT_TRUE(both.fake.engine().poll(event));
    EXPECT_EQ(event.batch, &b);
  }
  EXPECT_FALSE(both.fake.engine().poll(event));
  EXPECT_EQ(both.fake.engine().running_for(Clock::now()), std::nullopt);
  expect_as_on_cpu(batches, again);
}

TEST_F(RunAhead, StopDoesNotBeginTheStepThatWaits) {
  std::vector<StepBatch> batches(2);
  for (uint32_t i = 0; i < 2; ++i) {
    batches[i].add_sequence();
    batches[i].sequences[0].num_rows = 1;
    batches[i].sequences[0].block_table = table(0);
    batches[i].sequences[0].last_of = SlotId{7};
    batches[i].samples.push_back({.sequence = 0, .slot = SlotId{7}});
  }
  batches[0].opens.push_back(
      {.slot = SlotId{7}, .params = {.presence_penalty = 1}, .tokens = {1}, .prompt_tokens = 1});
  both.gpu.hold();
  for (StepBatch& b : batches) ASSERT_TRUE(both.fake.engine().submit(&b));
  wait_until_enqueued(1);
  auto stopped = std::async(std::launch::async, [&] { both.fake.engine().stop(); });
  std::this_thread::sleep_for(milliseconds(20));
  both.gpu.let_go();
  stopped.get();
  EXPECT_EQ(enqueued(), 1u);
  EXPECT_EQ(both.fake.engine().steps_done(), 2u);
}

}  // namespace
}  // namespace baton::engine
