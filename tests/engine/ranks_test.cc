// An engine of several ranks gives what an engine alone gives, bit for bit, digests included; and
// it ends when a rank is lost. On CPUs, and on devices that run behind the host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/engine/rank_loop.h"
#include "common/engine/step_codec.h"
#include "tests/engine/driver.h"
#include "tests/engine/random_load.h"
#include "tests/fakes/fake_gpu.h"
#include "tests/fakes/fake_gpu_ranks.h"
#include "tests/fakes/rank_threads.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"

namespace baton::engine {
namespace {

using testing::HasSubstr;

// The steps on their way to one rank.
class Steps {
 public:
  void push(std::vector<std::byte> step) {
    const std::lock_guard lock(mutex_);
    steps_.push_back(std::move(step));
    changed_.notify_one();
  }
  void end() { push({}); }
  result<NextStep> take(StepBatch& batch, bool wait) {
    std::unique_lock lock(mutex_);
    const auto any = [this] { return !steps_.empty(); };
    if (wait) {
      changed_.wait(lock, any);
    } else if (!changed_.wait_for(lock, std::chrono::microseconds(50), any)) {
      return NextStep::kNotYet;
    }
    const std::vector<std::byte> step = std::move(steps_.front());
    steps_.pop_front();
    if (step.empty()) return NextStep::kEnd;
    BATON_CHECK_OK(decode(step, &batch));
    return NextStep::kStep;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> steps_;
};

class AllSteps final : public RankSteps {
 public:
  explicit AllSteps(uint32_t ranks) : to(ranks) {}
  status tell(const StepBatch& batch) override {
    std::vector<std::byte> bytes;
    encode(batch, &bytes);
    for (size_t r = 1; r < to.size(); ++r) to[r].push(bytes);
    return {};
  }
  std::deque<Steps> to;  // [0] has none
};

// What ranks compute with.
struct Backend {
  bool is_behind = false;  // the host
};
void PrintTo(const Backend& b, std::ostream* os) { *os << (b.is_behind ? "behind" : "inline"); }

class Ranks : public testing::TestWithParam<Backend> {
 protected:
  Ranks() {
    formats::ModelConfig config = fakes::tiny_config("llama");
    config.num_heads = 8;
    config.num_kv_heads = 4;
    fakes::write_hf_model(dir_ / "model", fakes::make_tiny_model(config, 5));
  }

  void run_ranks(uint32_t size,
                 const std::function<void(std::unique_ptr<collective::Collective>)>& body) {
    fakes::run_ranks(
        size, body, milliseconds(20000),
        GetParam().is_behind ? fakes::Connect(fakes::connect_fake_gpus) : collective::connect_gloo);
  }
  // What a rank computes with; all share the host's side of the cache.
  model::TestOptions on_rank(uint32_t rank) {
    model::TestOptions options = options_;
    options.shared_cache = cache_.data();
    if (GetParam().is_behind) {
      options.backend = [rank] {
        auto gpu = std::make_unique<device::FakeGpu>(rank);
        gpu->set_jitter(std::chrono::microseconds(100));
        return model::Backend{std::move(gpu), ops::fake_gpu_ops()};
      };
    }
    return options;
  }

  // `lead` on rank 0, with all others following it, each step `late`.
  void run(uint32_t size, const std::function<void(Driver&)>& lead,
           const std::function<void(const status&)>& follower_ended,
           milliseconds late = milliseconds(0)) {
    AllSteps steps(size);
    run_ranks(size, [&](std::unique_ptr<collective::Collective> ranks) {
      model::TestOptions mine = on_rank(ranks->rank());
      mine.collective = ranks.get();
      if (ranks->rank() == 0) {
        Driver driver(dir_ / "model", {.model = mine, .ranks = &steps});
        lead(driver);
        for (uint32_t r = 1; r < size; ++r) steps.to[r].end();
        return;
      }
      model::ModelUnderTest m(dir_ / "model", mine);
      const auto runner =
          StepRunner::create(
              m.model(), {m.cache(), m.host_cache()}, m.device(), m.ops(),
              {mine.max_rows, mine.max_sequences, mine.max_samples, m.model().max_context()})
              .value();
      Steps& next = steps.to[ranks->rank()];
      follower_ended(follow_steps(*runner, *ranks, [&](StepBatch& batch, bool wait) {
        auto taken = next.take(batch, wait);
        if (taken && *taken == NextStep::kStep) {
          std::this_thread::sleep_for(late);
          ++followed_;
        }
        return taken;
      }));
    });
  }

  std::atomic<uint32_t> followed_{0};  // steps that others than the first were about to begin
  const fakes::TempDir dir_;
  const model::TestOptions options_ = {.threads = 1, .num_blocks = 160, .max_rows = 48};
  std::vector<std::byte> cache_ = std::vector<std::byte>(16u << 20);
};

TEST_P(Ranks, RandomLoadsGiveWhatOneGives) {
  Driver alone(dir_ / "model", {.model = options_});
  for (const uint32_t size : {2u, 4u}) {
    run(
        size,
        [&](Driver& together) {
          for (uint32_t seed = 0; seed < 4; ++seed) {
            const auto expected = run_load(alone, seed), got = run_load(together, seed);
            ASSERT_EQ(expected.size(), got.size()) << "seed " << seed;
            for (size_t i = 0; i < expected.size(); ++i) {
              ASSERT_TRUE(same_results(expected[i], got[i]))
                  << size << " ranks, seed " << seed << ", step " << i;
            }
          }
        },
        [](const status& ended) { EXPECT_TRUE(ended); });
  }
}

// Layers that nobody is told of are added up with the next that somebody is.
TEST_P(Ranks, DigestsOfUntoldLayersAreAddedUp) {
  const auto digests = [](Driver& driver) {
    StepBatch batch;
    StepSequence& s = batch.add_sequence();
    s.num_rows = 40;
    s.tokens.assign(40, 7);
    s.block_table = {BlockId{1}, BlockId{4}, BlockId{2}};
    s.digest = true;
    batch.told_layers = {1};
    EXPECT_EQ(driver.run(batch), (std::vector<uint32_t>{1}));
    return batch.sequences[0].digests;
  };
  Driver alone(dir_ / "model", {.model = options_});
  const auto expected = digests(alone);
  ASSERT_EQ(expected.size(), 6u);
  run(
      2, [&](Driver& together) { EXPECT_EQ(digests(together), expected); },
      [](const status& ended) { EXPECT_TRUE(ended); });
}

// Whoever is told that a step is done may have its blocks read into: nobody writes there any more.
TEST_P(Ranks, AStepIsDoneWhenItIsDoneOnAllRanks) {
  run(
      2,
      [this](Driver& together) {
        const kvcache::KvCache& whole = together.model().whole_cache();
        const bool seen = !GetParam().is_behind;  // else the device has them alone
        const auto from = whole.block(BlockId{1}), to = whole.block(BlockId{2});
        std::ranges::fill(from, std::byte{7});
        StepBatch copies;
        copies.block_copies.emplace_back(BlockId{1}, BlockId{2});
        together.run(copies);
        EXPECT_EQ(followed_, 1u) << "copies alone";
        EXPECT_TRUE(!seen || std::ranges::equal(from, to)) << "copies alone";

        StepBatch chunk;  // of a prompt: no output is wanted, and its last layer ends early
        StepSequence& s = chunk.add_sequence();
        s.num_rows = 16;
        s.tokens.assign(16, 7);
        s.block_table = {BlockId{2}};
        together.run(chunk);
        EXPECT_EQ(followed_, 2u) << "a chunk without outputs";
        const std::vector<std::byte> written(to.begin(), to.end());
        std::this_thread::sleep_for(milliseconds(200));
        EXPECT_TRUE(std::ranges::equal(written, to)) << "a chunk without outputs";
      },
      [](const status& ended) { EXPECT_TRUE(ended); }, milliseconds(50));
}

// What comes out of a step without all its ranks is no result.
TEST_P(Ranks, ALostRankEndsTheEngine) {
  AllSteps steps(2);
  run_ranks(2, [&](std::unique_ptr<collective::Collective> ranks) {
    model::TestOptions mine = on_rank(ranks->rank());
    mine.collective = ranks.get();
    if (ranks->rank() == 1) return;
    Driver driver(dir_ / "model", {.model = mine, .ranks = &steps});
    StepBatch batch;
    StepSequence& s = batch.add_sequence();
    s.num_rows = 4;
    s.tokens.assign(4, 7);
    s.block_table = {BlockId{1}};
    s.digest = true;
    batch.opens.push_back({.slot = SlotId{0}, .tokens = s.tokens, .prompt_tokens = 4});
    batch.samples.push_back({.sequence = 0, .slot = SlotId{0}});
    ASSERT_TRUE(driver.engine().submit(&batch));
    EXPECT_EQ(driver.wait().kind, EngineEvent::Kind::kFailed) << "and no layer was told";
    EXPECT_THAT(driver.engine().failure().error().message, HasSubstr("a rank is lost"));
    StepBatch another;
    EXPECT_FALSE(driver.engine().submit(&another));
    EXPECT_FALSE(driver.engine().running_for(Clock::now()));
  });
}

TEST_P(Ranks, WhoCannotBeToldEndsTheEngine) {
  class Deaf final : public RankSteps {
    status tell(const StepBatch&) override { return error(Errc::kUnavailable, "rank 1 is deaf"); }
  } deaf;
  Driver driver(dir_ / "model", {.model = options_, .ranks = &deaf});
  StepBatch batch;
  batch.block_copies.emplace_back(BlockId{1}, BlockId{2});
  ASSERT_TRUE(driver.engine().submit(&batch));
  EXPECT_EQ(driver.wait().kind, EngineEvent::Kind::kFailed);
  EXPECT_EQ(driver.engine().failure().error().message, "rank 1 is deaf");
}

INSTANTIATE_TEST_SUITE_P(, Ranks, testing::Values(Backend{false}, Backend{true}),
                         [](const auto& info) {
                           return info.param.is_behind ? "Behind" : "Inline";
                         });

}  // namespace
}  // namespace baton::engine
