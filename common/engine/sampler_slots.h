#pragma once

#include <cstdint>
#include <vector>

#include "common/base/ids.h"
#include "common/engine/step.h"
#include "common/ops/ops.h"

namespace baton::engine {

// What the sampler knows of each running choice. It is a function of what the slot was opened with
// and of the tokens drawn since, so a choice can be opened elsewhere and draws the same. Used by
// the engine's thread.
class SamplerSlots {
 public:
  SamplerSlots(uint32_t max_slots, uint32_t max_context, uint32_t vocab_size);

  // Starts a choice in the slot, whatever was there. May allocate: a drawn token does not.
  void open(const SlotOpen& open);
  // The token drawn last, if no draw is under way.
  TokenId last_token(SlotId slot) const { return slots_[slot.value].last_token; }
  // What ops.sample wants, good until the slot is opened again or accepts a token. `position`: of
  // the token to be drawn.
  ops::SampleRow row(SlotId slot, uint32_t logits_row, uint32_t position) const;

  // A draw goes from begin_draw(), after which the next row() may be asked for, to accept(), when
  // its token is known. Of several draws under way each is accepted in turn.
  struct Draw {
    SlotId slot;
    uint32_t opened = 0;  // which opening of the slot it belongs to
  };
  Draw begin_draw(SlotId slot);
  void accept(const Draw& draw, TokenId token);  // nothing, if the slot was opened anew meanwhile
  bool is_drawing(SlotId slot) const { return slots_[slot.value].draws > 0; }
  // Whether the next row() needs to know the tokens drawn so far.
  bool needs_tokens(SlotId slot) const { return slots_[slot.value].has_penalties; }

 private:
  struct Slot {
    ops::SamplingParams params;
    std::vector<ops::LogitBias> logit_bias;
    std::vector<TokenId> banned_until_min;
    bool has_penalties = false;
    std::vector<ops::TokenCount> counts;  // by token, ascending; kept if has_penalties
    TokenId last_token = 0;
    uint32_t output_tokens = 0;  // those being drawn included
    uint32_t choice = 0;
    uint32_t opened = 0;  // how often
    uint32_t draws = 0;   // under way
  };

  void count_tokens(const SlotOpen& open, Slot* slot) const;

  const uint32_t max_counts_;  // tokens that can be different in one sequence
  std::vector<Slot> slots_;
};

}  // namespace baton::engine
