#include "common/engine/sampler_slots.h"

#include <algorithm>
#include <cassert>

namespace baton::engine {
namespace {

bool uses_penalties(const ops::SamplingParams& p) {
  return p.repetition_penalty != 1.0f || p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}

bool before(const ops::TokenCount& a, const ops::TokenCount& b) { return a.token < b.token; }

}  // namespace

SamplerSlots::SamplerSlots(uint32_t max_slots, uint32_t max_context, uint32_t vocab_size)
    : max_counts_(std::min(max_context, vocab_size)), slots_(max_slots) {}

void SamplerSlots::open(const SlotOpen& open) {
  assert(open.slot.value < slots_.size() && open.prompt_tokens <= open.tokens.size());
  Slot& slot = slots_[open.slot.value];
  slot.params = open.params;
  slot.logit_bias = open.logit_bias;
  slot.banned_until_min = open.banned_until_min;
  slot.has_penalties = uses_penalties(open.params);
  slot.counts.clear();
  if (slot.has_penalties) count_tokens(open, &slot);
  slot.last_token = open.tokens.empty() ? 0 : open.tokens.back();
  slot.output_tokens = static_cast<uint32_t>(open.tokens.size()) - open.prompt_tokens;
  slot.choice = open.choice;
  ++slot.opened;
  slot.draws = 0;
}

void SamplerSlots::count_tokens(const SlotOpen& open, Slot* slot) const {
  std::vector<ops::TokenCount>& counts = slot->counts;
  counts.reserve(std::max<size_t>(max_counts_, open.tokens.size()));
  for (size_t i = 0; i < open.tokens.size(); ++i) {
    const bool in_prompt = i < open.prompt_tokens;
    counts.push_back({open.tokens[i], in_prompt ? 1u : 0u, in_prompt ? 0u : 1u});
  }
  std::sort(counts.begin(), counts.end(), before);
  size_t kept = 0;
  for (const ops::TokenCount& c : counts) {
    if (kept > 0 && counts[kept - 1].token == c.token) {
      counts[kept - 1].in_prompt += c.in_prompt;
      counts[kept - 1].in_output += c.in_output;
    } else {
      counts[kept++] = c;
    }
  }
  counts.resize(kept);
}

ops::SampleRow SamplerSlots::row(SlotId id, uint32_t logits_row, uint32_t position) const {
  const Slot& slot = slots_[id.value];
  return {.logits_row = logits_row,
          .params = &slot.params,
          .logit_bias = slot.logit_bias,
          .counts = slot.counts,
          .banned_until_min = slot.banned_until_min,
          .choice = slot.choice,
          .position = position,
          .output_tokens = slot.output_tokens};
}

SamplerSlots::Draw SamplerSlots::begin_draw(SlotId id) {
  Slot& slot = slots_[id.value];
  ++slot.draws;
  ++slot.output_tokens;
  return {id, slot.opened};
}

void SamplerSlots::accept(const Draw& draw, TokenId token) {
  Slot& slot = slots_[draw.slot.value];
  if (slot.opened != draw.opened) return;
  assert(slot.draws > 0);
  --slot.draws;
  slot.last_token = token;
  if (!slot.has_penalties) return;
  const auto at = std::lower_bound(slot.counts.begin(), slot.counts.end(),
                                   ops::TokenCount{token, 0, 0}, before);
  if (at != slot.counts.end() && at->token == token) {
    ++at->in_output;
  } else {
    slot.counts.insert(at, {token, 0, 1});
  }
}

}  // namespace baton::engine
