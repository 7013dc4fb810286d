#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "common/engine/request.h"
#include "common/engine/step.h"

namespace baton::fakes {

// An engine without a model. Its cache remembers for each cell which token was written there at
// which position; what it draws depends on every cell that the block table names, as a model's
// output depends on every KV vector. So a wrong block, a stale one or a missing copy shows as a
// wrong token. reference_output() says what is right, without any cache.
class FakeEngine {
 public:
  static constexpr TokenId kVocabulary = 50;

  FakeEngine(uint32_t num_blocks, uint32_t block_tokens, uint32_t num_layers, uint32_t num_slots)
      : block_tokens_(block_tokens),
        num_layers_(num_layers),
        cells_(size_t{num_blocks} * block_tokens),
        slots_(num_slots) {}

  // Computes a whole step and fills in its results.
  void run(engine::StepBatch& batch) {
    for (const engine::SlotOpen& open : batch.opens) slots_[open.slot.value] = open;
    for (const auto& [from, to] : batch.block_copies) copy_block(*this, from, to);
    for (engine::StepSequence& s : batch.sequences) run_sequence(s);
    for (engine::StepSample& sample : batch.samples) draw(batch, sample);
  }

  // Reads one block of another engine's cache into this one's, as a transfer does.
  void copy_block(const FakeEngine& other, BlockId from, BlockId to) {
    for (uint32_t t = 0; t < block_tokens_; ++t) cell(to, t) = other.cell(from, t);
  }

  // The output of one choice, until it ends.
  static std::vector<TokenId> reference_output(std::span<const TokenId> prompt,
                                               const engine::Sampling& sampling, uint32_t choice) {
    uint64_t context = 0;
    uint32_t position = 0;
    for (const TokenId token : prompt) context = extend(context, kv(token, position++));
    std::vector<TokenId> output;
    do {
      output.push_back(choose(context, sampling.params.seed, choice));
      context = extend(context, kv(output.back(), position++));
    } while (!finish_of(sampling, static_cast<uint32_t>(output.size()) - 1, output.back()));
    return output;
  }

  static uint64_t digest(uint64_t sum_of_cells, uint32_t layer) { return sum_of_cells + layer; }
  // What `digests` of a step must hold for a block whose first `tokens` cells are written.
  uint64_t digest_of(BlockId block, uint32_t tokens, uint32_t layer) const {
    uint64_t sum = 0;
    for (uint32_t t = 0; t < tokens; ++t) sum += cell(block, t);
    return digest(sum, layer);
  }

 private:
  static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  static uint64_t kv(TokenId token, uint32_t position) {
    return mix(uint64_t{position} << 32 | static_cast<uint32_t>(token));
  }
  static uint64_t extend(uint64_t context, uint64_t cell) { return mix(context ^ cell); }
  static TokenId choose(uint64_t context, uint64_t seed, uint32_t choice) {
    return static_cast<TokenId>(mix(context + mix(seed * 31 + choice)) % kVocabulary);
  }

  uint64_t& cell(BlockId block, uint32_t token) {
    return cells_[size_t{block.value} * block_tokens_ + token];
  }
  uint64_t cell(BlockId block, uint32_t token) const {
    return cells_[size_t{block.value} * block_tokens_ + token];
  }
  uint64_t& at(const engine::StepSequence& s, uint32_t position) {
    return cell(s.block_table.at(position / block_tokens_), position % block_tokens_);
  }

  void run_sequence(engine::StepSequence& s) {
    const uint32_t end = s.position + s.num_rows;
    if (s.tokens.empty()) {
      EXPECT_EQ(s.num_rows, 1u);
      at(s, s.position) = kv(slots_[s.last_of.value].tokens.back(), s.position);
    } else {
      EXPECT_EQ(s.tokens.size(), s.num_rows);
      for (uint32_t i = 0; i < s.num_rows; ++i)
        at(s, s.position + i) = kv(s.tokens[i], s.position + i);
    }
    if (s.digest) fill_digests(s);
    if (s.prompt_logprobs < 0) return;
    EXPECT_EQ(s.next_tokens.size(), s.num_rows);
    s.scores.resize(s.num_rows);
    for (uint32_t i = 0; i < s.num_rows; ++i) s.scores[i].token = s.next_tokens[i];
    EXPECT_LE(end, s.block_table.size() * block_tokens_);
  }

  void fill_digests(engine::StepSequence& s) {
    const uint32_t end = s.position + s.num_rows, first = s.position / block_tokens_;
    for (uint32_t layer = 0; layer < num_layers_; ++layer) {
      for (uint32_t b = first; b * block_tokens_ < end; ++b) {
        const uint32_t tokens = std::min(block_tokens_, end - b * block_tokens_);
        s.digests.push_back(digest_of(s.block_table[b], tokens, layer));
      }
    }
  }

  void draw(const engine::StepBatch& batch, engine::StepSample& sample) {
    const engine::StepSequence& s = batch.sequences[sample.sequence];
    engine::SlotOpen& slot = slots_[sample.slot.value];
    const uint32_t end = s.position + s.num_rows;
    EXPECT_EQ(slot.tokens.size(), end) << "the sampler and the cache stand at different places";
    uint64_t context = 0;
    for (uint32_t p = 0; p < end; ++p) {
      context = extend(context, cell(s.block_table.at(p / block_tokens_), p % block_tokens_));
    }
    sample.result = {};
    sample.result.token = choose(context, slot.params.seed, slot.choice);
    slot.tokens.push_back(sample.result.token);
  }

  uint32_t block_tokens_;
  uint32_t num_layers_;
  std::vector<uint64_t> cells_;          // [block][token]
  std::vector<engine::SlotOpen> slots_;  // [slot]
};

}  // namespace baton::fakes
