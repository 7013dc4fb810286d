#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/ids.h"
#include "common/engine/engine.h"
#include "common/engine/step.h"
#include "common/ops/ops.h"
#include "tests/model/model_under_test.h"

namespace baton::engine {

// One sequence for the driver.
struct Job {
  std::vector<TokenId> prompt;
  uint32_t max_tokens = 8;
  ops::SamplingParams params{.temperature = 0, .logprobs = 20, .want_logprobs = true};
  uint32_t start_step = 0;               // it is not looked at before
  std::vector<BlockId> cached;           // whole blocks whose K and V are there
  std::vector<TokenId> drawn_before;     // a resumed job: tokens it drew in an earlier life
  std::vector<ops::SampleResult> drawn;  // result
  std::vector<BlockId> table;            // result
};

// A model, its cache and an engine; and the least of a scheduler: decode rows first, then prompt
// chunks of at most `chunk` rows while the step has room. Two steps are in flight, so every decode
// row is planned before its token is known. Everything that goes wrong throws.
class Driver {
 public:
  struct Options {
    model::TestOptions model{.num_blocks = 512, .max_rows = 256};
    uint32_t depth = 2;
    RankSteps* ranks = nullptr;
    WarmUp warm_up;
    bool is_read_on_device = false;  // there is no mirror
  };

  explicit Driver(const std::filesystem::path& model, const Options& options);

  Engine& engine() { return *engine_; }
  model::ModelUnderTest& model() { return model_; }
  const kvcache::KvLayout& layout() { return model_.cache().layout(); }
  const StepLimits& limits() const { return limits_; }

  // Fresh blocks; in an order that is not that of memory.
  std::vector<BlockId> allocate(uint32_t blocks);
  // Runs jobs to their end.
  void run(std::vector<Job>& jobs, uint32_t chunk);
  void run(Job& job, uint32_t chunk);

  // Runs one batch; returns the layers told, in order.
  std::vector<uint32_t> run(StepBatch& batch);
  // Blocks until the engine has an event.
  EngineEvent wait();

 private:
  struct Progress {
    uint32_t computed = 0;  // tokens whose rows were planned
    uint32_t planned = 0;   // samples
  };
  struct Target {
    uint32_t job, index;
  };

  void plan(std::vector<Job>& jobs, std::vector<Progress>& progress, uint32_t step, uint32_t chunk,
            StepBatch& batch, std::vector<Target>& targets);
  void add_rows(Job& job, Progress& p, SlotId slot, uint32_t rows, StepBatch& batch);

  model::ModelUnderTest model_;
  StepLimits limits_;
  std::unique_ptr<Engine> engine_;
  uint32_t next_block_ = 0;
};

}  // namespace baton::engine
