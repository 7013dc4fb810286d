#include "common/engine/sampler_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

MATCHER_P3(Count, token, in_prompt, in_output, "") {
  return arg.token == token && arg.in_prompt == static_cast<uint32_t>(in_prompt) &&
         arg.in_output == static_cast<uint32_t>(in_output);
}

constexpr SlotId kSlot{2};

SlotOpen open_with(ops::SamplingParams params, std::vector<TokenId> tokens, uint32_t prompt) {
  return {.slot = kSlot,
          .params = params,
          .logit_bias = {{7, -1.0f}},
          .banned_until_min = {9},
          .tokens = std::move(tokens),
          .prompt_tokens = prompt,
          .choice = 3};
}

TEST(SamplerSlots, RowHasWhatTheSlotWasOpenedWith) {
  SamplerSlots slots(4, 100, 50);
  slots.open(open_with({.temperature = 0.5f, .seed = 8}, {1, 2, 3}, 2));
  const ops::SampleRow row = slots.row(kSlot, 6, 11);
  EXPECT_EQ(row.logits_row, 6u);
  EXPECT_EQ(row.position, 11u);
  EXPECT_EQ(row.params->seed, 8u);
  EXPECT_EQ(row.choice, 3u);
  EXPECT_EQ(row.output_tokens, 1u);
  ASSERT_EQ(row.logit_bias.size(), 1u);
  EXPECT_EQ(row.logit_bias[0].token, 7);
  EXPECT_THAT(row.banned_until_min, ElementsAre(9));
  EXPECT_EQ(slots.last_token(kSlot), 3);
}

TEST(SamplerSlots, CountsNothingWithoutPenalties) {
  SamplerSlots slots(4, 100, 50);
  slots.open(open_with({}, {1, 1, 2}, 3));
  slots.accept(slots.begin_draw(kSlot), 1);
  EXPECT_THAT(slots.row(kSlot, 0, 0).counts, IsEmpty());
  EXPECT_EQ(slots.last_token(kSlot), 1);
  EXPECT_EQ(slots.row(kSlot, 0, 0).output_tokens, 1u);
}

TEST(SamplerSlots, CountsPromptAndOutputApart) {
  for (const ops::SamplingParams& params : {ops::SamplingParams{.repetition_penalty = 1.1f},
                                            ops::SamplingParams{.presence_penalty = 0.1f},
                                            ops::SamplingParams{.frequency_penalty = 0.1f}}) {
    SamplerSlots slots(4, 100, 50);
    slots.open(open_with(params, {5, 1, 5, 5, 4}, 3));
    slots.accept(slots.begin_draw(kSlot), 4);
    slots.accept(slots.begin_draw(kSlot), 0);
    EXPECT_THAT(slots.row(kSlot, 0, 0).counts,
                ElementsAre(Count(0, 0, 1), Count(1, 1, 0), Count(4, 0, 2), Count(5, 2, 1)));
  }
}

TEST(SamplerSlots, ReopeningForgetsEverything) {
  SamplerSlots slots(4, 100, 50);
  slots.open(open_with({.frequency_penalty = 1}, {5, 1}, 1));
  slots.accept(slots.begin_draw(kSlot), 2);
  slots.open(open_with({.frequency_penalty = 1}, {6}, 1));
  EXPECT_THAT(slots.row(kSlot, 0, 0).counts, ElementsAre(Count(6, 1, 0)));
  EXPECT_EQ(slots.row(kSlot, 0, 0).output_tokens, 0u);
  EXPECT_EQ(slots.last_token(kSlot), 6);
}

// Opened with what was drawn so far, a slot is what it would have become.
TEST(SamplerSlots, AResumedSlotEqualsOneThatWentOn) {
  SamplerSlots went_on(4, 100, 50), resumed(4, 100, 50);
  went_on.open(open_with({.presence_penalty = 1}, {5, 1}, 2));
  for (const TokenId t : {3, 5, 3}) went_on.accept(went_on.begin_draw(kSlot), t);
  resumed.open(open_with({.presence_penalty = 1}, {5, 1, 3, 5, 3}, 2));
  const auto a = went_on.row(kSlot, 0, 5), b = resumed.row(kSlot, 0, 5);
  EXPECT_EQ(a.output_tokens, b.output_tokens);
  ASSERT_EQ(a.counts.size(), b.counts.size());
  for (size_t i = 0; i < a.counts.size(); ++i) {
    EXPECT_THAT(a.counts[i],
                Count(b.counts[i].token, b.counts[i].in_prompt, b.counts[i].in_output));
  }
  EXPECT_EQ(went_on.last_token(kSlot), resumed.last_token(kSlot));
}

}  // namespace
}  // namespace baton::engine
