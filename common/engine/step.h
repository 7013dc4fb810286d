#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/ops/ops.h"

// What one step of the engine computes. Schedulers fill a StepBatch; the engine runs it; the same
// object comes back with results. Batches are pooled: clear() keeps the memory.
namespace baton::engine {

// A sequence's sampler starts in a slot. Opened in order with the steps; reopening a slot replaces
// what was there.
struct SlotOpen {
  SlotId slot;
  ops::SamplingParams params;
  std::vector<ops::LogitBias> logit_bias;
  std::vector<TokenId> banned_until_min;  // EOS and stop ids
  std::vector<TokenId> tokens;            // prompt, then tokens drawn so far (resume)
  uint32_t prompt_tokens = 0;             // how many of them are prompt
  uint32_t choice = 0;
};

// Rows of one sequence: tokens at positions [position, position + num_rows).
struct StepSequence {
  RequestId request;
  uint32_t position = 0;
  uint32_t num_rows = 0;
  // Empty: one row, the token that `last_of` drew last (it need not be known to the host yet).
  std::vector<TokenId> tokens;
  SlotId last_of;
  std::vector<BlockId> block_table;  // covers position + num_rows tokens
  bool digest = false;               // digest each block of these rows as it is written
  int32_t prompt_logprobs = -1;      // >= 0: score each row's next token, with so many alternatives
  std::vector<TokenId> next_tokens;  // then: the token after each row, as far as they are known
  uint64_t client = 0;               // the scheduler's own mark, handed back untouched
  // Results.
  std::vector<uint64_t> digests;          // [layer][block touched]; blocks position/B .. (end-1)/B
  std::vector<ops::SampleResult> scores;  // [next_tokens], if prompt_logprobs >= 0
};

// Draw one token for `slot` from the last row of `sequence`.
struct StepSample {
  uint32_t sequence = 0;  // index into StepBatch::sequences
  SlotId slot;
  ops::SampleResult result;  // set when the step is done
};

struct StepBatch {
  uint64_t step = 0;
  std::vector<SlotOpen> opens;
  std::vector<StepSequence> sequences;
  std::vector<StepSample> samples;
  // Copies of whole blocks, before the step computes (copy-on-write): {from, to}.
  std::vector<std::pair<BlockId, BlockId>> block_copies;
  // Blocks that were received from another worker since the last step: where the device has memory
  // of its own, they are brought there before the step computes.
  std::vector<BlockId> arrived;
  // Layers after which Engine tells that they are done, ascending, the last one among them; empty:
  // each.
  std::vector<uint32_t> told_layers;
  bool is_told(uint32_t layer) const {
    return told_layers.empty() || std::ranges::binary_search(told_layers, layer);
  }
  Duration duration{};              // result: how long the step ran
  std::vector<StepSequence> spare;  // sequences of earlier steps, for their memory

  // An empty sequence at the end, with the memory of an earlier one.
  StepSequence& add_sequence();
  void clear();  // as new, but keeps the memory
  uint32_t num_rows() const;
  bool empty() const { return sequences.empty() && block_copies.empty() && arrived.empty(); }
};

inline StepSequence& StepBatch::add_sequence() {
  if (spare.empty()) return sequences.emplace_back();
  StepSequence& s = sequences.emplace_back(std::move(spare.back()));
  spare.pop_back();
  s.tokens.clear();
  s.block_table.clear();
  s.next_tokens.clear();
  s.digests.clear();
  s.scores.clear();
  s.last_of = {};
  s.digest = false;
  s.prompt_logprobs = -1;
  return s;
}

inline void StepBatch::clear() {
  opens.clear();
  if (spare.size() < sequences.size()) std::swap(spare, sequences);  // the fewer are moved
  for (StepSequence& s : sequences) spare.push_back(std::move(s));
  sequences.clear();
  samples.clear();
  block_copies.clear();
  arrived.clear();
  told_layers.clear();
}

struct StepLimits {
  uint32_t max_rows = 0;       // rows (tokens) in a step
  uint32_t max_sequences = 0;  // sequences in a step
  uint32_t max_slots = 0;      // sampler slots
  uint32_t max_context = 0;    // tokens in a sequence, prompt and output
};

// What is left of a step that is being planned. Schedulers take from it in turn.
struct StepBudget {
  uint32_t rows = 0;
  uint32_t sequences = 0;
  uint32_t keep_free_blocks = 0;  // that no new prompt may take: running sequences will grow
};

}  // namespace baton::engine
