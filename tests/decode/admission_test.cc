#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/decode/scheduler_fixture.h"

namespace baton::decode {
namespace {

using testing::HasSubstr;

using AdmissionTest = SchedulerTest;

TEST_F(AdmissionTest, ReceivesOnlyWhatItLacks) {
  Scheduler s = make();
  start(s, request(1, 9));
  ASSERT_TRUE(s.cancel(key(1)));
  DecodeRequest longer = request(2, 11);
  Granted granted = grant(s, longer);
  EXPECT_EQ(granted.first_lacking_block, 2u);
  EXPECT_EQ(granted.blocks.size(), 3u);
  ASSERT_TRUE(s.cancel(key(2)));
  pool.release_quarantine(granted.blocks[2]);
  longer.granule_tokens = 8;
  EXPECT_EQ(grant(s, longer).first_lacking_block, 2u);
  DecodeRequest short_one = request(3, 4);
  short_one.granule_tokens = 8;
  EXPECT_EQ(grant(s, short_one).first_lacking_block, 1u) << "nothing lacks, whatever the granule";
  DecodeRequest other = request(4, 7);
  other.granule_tokens = 8;
  EXPECT_EQ(grant(s, other).first_lacking_block, 0u);
  other.request.key = key(5);
  other.request.salt = "tenant";
  other.granule_tokens = 1;
  EXPECT_EQ(grant(s, other).first_lacking_block, 0u);
}

TEST_F(AdmissionTest, JoinWantsTheRightReservation) {
  Scheduler s = make();
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
  grant(s, request(1, 6));
  EXPECT_EQ(s.join(key(1, 2), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1, 2}, events).error().code,
            Errc::kInvalidArgument);
  for (const TokenId outside : {-1, FakeEngine::kVocabulary}) {
    EXPECT_EQ(s.join(key(1), std::vector<TokenId>{outside}, events).error().code,
              Errc::kInvalidArgument);
  }
  EXPECT_TRUE(events.empty());
  EXPECT_TRUE(s.join(key(1), std::vector<TokenId>{FakeEngine::kVocabulary - 1}, events));
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
}

TEST_F(AdmissionTest, RefusesWhatNeverFits) {
  Scheduler s = make();
  EXPECT_THAT(s.reserve(request(1, 65)).error().message, HasSubstr("65 are possible"));
  EXPECT_FALSE(s.reserve(request(1, 0)));
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = kSlots + 1;
  EXPECT_THAT(s.reserve(r).error().message, HasSubstr("choices"));
  r = request(1, 6);
  r.request.sampling.max_tokens = 0;
  EXPECT_FALSE(s.reserve(r));
  r = request(1, 6);
  r.granule_tokens = 0;
  EXPECT_FALSE(s.reserve(r));
  grant(s, request(1, 6));
  EXPECT_THAT(s.reserve(request(1, 6)).error().message, HasSubstr("already"));
}

TEST_F(AdmissionTest, AdmissionLeavesRoomToGrow) {
  Scheduler s = make({.watermark_blocks = 3, .growth_blocks = 2});
  start(s, request(1, 20));  // idle: takes what fits; 11 of 16 blocks left
  const auto refused = s.reserve(request(2, 20, 100));  // 5, and 3 + 2 * 2 to stay free
  ASSERT_TRUE(refused);
  ASSERT_TRUE(std::holds_alternative<Full>(*refused));
  EXPECT_GT(std::get<Full>(*refused).retry_after, Duration::zero());
  EXPECT_EQ(pool.counts().active, 5u) << "a refusal holds nothing";
  grant(s, request(3, 16, 200));
  StepBatch batch;
  engine::StepBudget budget{.rows = 64, .sequences = 64};
  s.plan(budget, batch, events);
  EXPECT_EQ(budget.keep_free_blocks, 3u + 2 * 2);
  EXPECT_EQ(budget.rows, 63u);
  EXPECT_EQ(budget.sequences, 63u);
}

TEST_F(AdmissionTest, AdmissionCountsSequences) {
  Scheduler s = make();
  DecodeRequest r = request(1, 4);
  r.request.sampling.num_choices = 4;
  grant(s, r);
  r.request.key = key(2);
  EXPECT_TRUE(std::holds_alternative<Full>(*s.reserve(r)));
  r.request.sampling.num_choices = 2;
  EXPECT_TRUE(std::holds_alternative<Granted>(*s.reserve(r)));
}

TEST_F(AdmissionTest, FullEstimatesFromStepsLeft) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = kSlots;
  r.request.sampling.max_tokens = 9;
  start(s, r);
  for (int i = 0; i < 3; ++i) step(s);  // 10 ms each
  const auto full = s.reserve(request(2, 6));
  ASSERT_TRUE(std::holds_alternative<Full>(*full));
  const Duration wait = std::get<Full>(*full).retry_after;
  EXPECT_GT(wait, milliseconds(40));  // 5 or 6 steps, the mean starts above
  EXPECT_LT(wait, milliseconds(150));
}

TEST_F(AdmissionTest, CancelledReservationsAreQuarantined) {
  Scheduler s = make();
  const Granted granted = grant(s, request(1, 10));
  ASSERT_TRUE(s.cancel(key(1)));
  EXPECT_EQ(pool.counts().quarantined, 3u);
  EXPECT_EQ(s.cancel(key(1)).error().code, Errc::kNotFound);
  for (const BlockId b : granted.blocks) pool.release_quarantine(b);
  expect_nothing_held(s);
}

}  // namespace
}  // namespace baton::decode
