#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "common/engine/engine.h"
#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"
#include "tests/engine/driver.h"

namespace baton::engine {

// Steps as a worker's schedulers plan them, drawn from a seed: prompts in chunks, some scored, some
// digested; several choices of one prompt, that fork its last block; prompts that are handed off
// and come back as another worker's; cancels at any time, and slots that are opened anew in the
// step after. What comes next depends on the seed and on results alone, so that it is the same for
// any engine that computes the same.
class RandomLoad {
 public:
  // `host`: the host's side of the engine's cache. Blocks that are handed off are read and written
  // there.
  RandomLoad(uint32_t seed, const kvcache::KvCache& host, const StepLimits& limits);

  bool finished() const { return planned_requests_ == kRequests && requests_.empty(); }
  // Plans the next step; never an empty one. done() has been called for all but the last one.
  void plan(StepBatch& batch);
  void done(const StepBatch& batch);

 private:
  static constexpr uint32_t kRequests = 14, kTogether = 6;

  struct Choice {
    SlotId slot;
    std::vector<BlockId> table;
    uint32_t drawn = 0;  // samples planned
    bool forks = false;  // its table's last prompt block is still to be copied
  };
  struct Request {
    std::vector<TokenId> prompt;
    ops::SamplingParams params;
    uint32_t max_tokens = 0, num_choices = 1;
    bool digest = false, hand_off = false;
    int32_t prompt_logprobs = -1;
    std::vector<BlockId> table, received;        // received: where it goes when it is handed off
    std::vector<std::vector<uint64_t>> digests;  // [block][layer]
    uint32_t computed = 0;
    uint32_t prefilled = 0;  // the step of its last chunk
    TokenId first_token = -1;
    std::vector<BlockId> owned;   // all its blocks
    std::vector<Choice> choices;  // those that draw
  };
  struct Target {
    uint64_t request;
    bool first;  // token of the request
  };

  uint32_t pick(uint32_t below) { return static_cast<uint32_t>(random_() % below); }
  bool chance(uint32_t one_in) { return pick(one_in) == 0; }
  ops::SamplingParams random_params();
  bool admit();
  void end(Request& request);
  void decode(Request& request, uint64_t id, StepBatch& batch);
  void receive(Request& request, uint64_t id, StepBatch& batch);
  void prefill(Request& request, uint64_t id, StepBatch& batch);
  void open(const Request& request, SlotId slot, uint32_t choice, std::vector<TokenId> tokens,
            StepBatch& batch) const;
  bool has_room(const StepBatch& batch) const;

  struct Entry {
    uint64_t id;
    Request request;
  };

  std::mt19937 random_;
  const kvcache::KvCache host_;
  const StepLimits limits_;
  uint32_t planned_requests_ = 0, step_ = 0;
  std::deque<Entry> requests_;  // that go on
  std::vector<BlockId> free_blocks_;
  std::vector<SlotId> free_slots_, released_slots_;
  std::deque<std::pair<uint32_t, BlockId>> resting_;  // blocks, and the step that may use them
  std::deque<std::vector<Target>> targets_;           // of samples of steps in flight
  uint32_t rows_left_ = 0;
};

// All results of a step.
struct StepResults {
  std::vector<ops::SampleResult> samples;
  std::vector<std::vector<ops::SampleResult>> scores;
  std::vector<std::vector<uint64_t>> digests;
  std::vector<uint32_t> layers;  // that were told
};
// Whether two results are the same, bit for bit.
bool same_results(const ops::SampleResult& a, const ops::SampleResult& b);
bool same_results(const StepResults& a, const StepResults& b);

// Runs a load to its end with two steps in flight.
std::vector<StepResults> run_load(Driver& driver, uint32_t seed);

}  // namespace baton::engine
