#include <gtest/gtest.h>

#include <deque>

#include "tests/decode/scheduler_fixture.h"

namespace baton::decode {
namespace {

using PreemptionTest = SchedulerTest;

TEST_F(PreemptionTest, ForcedPreemptionGivesBackWhatIsDelivered) {
  Scheduler s = make();
  const DecodeRequest r = request(1, 6);
  start(s, r);
  step(s), step(s);
  StepBatch batch = plan(s);
  ASSERT_TRUE(s.preempt(key(1), events));
  ASSERT_EQ(take<Preempted>().size(), 1u);
  const Preempted preempted = take<Preempted>()[0];
  const auto expected = output(r.request);
  EXPECT_EQ(preempted.output, (std::vector<TokenId>{expected[0], expected[1], expected[2]}));
  const size_t before = events.size();
  finish(s, batch);
  EXPECT_EQ(events.size(), before) << "what was in flight is drawn again elsewhere";
  EXPECT_FALSE(s.preempt(key(1), events));
  EXPECT_EQ(s.snapshot().preempted, 1u);
  expect_nothing_held(s);
}

TEST_F(PreemptionTest, AResumedChoiceGoesOnWhereItWas) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = 2;
  start(s, r);
  step(s), step(s);
  ASSERT_TRUE(s.preempt(key(1), events));
  const Preempted preempted = take<Preempted>().at(1);
  ASSERT_EQ(preempted.choice, 1u);
  DecodeRequest again = request(1, 6);
  again.request.key.generation = Generation{2};
  again.request.tokens.insert(again.request.tokens.end(), preempted.output.begin(),
                              preempted.output.end());
  again.request.sampling.first_choice = 1;
  events.clear();
  start(s, again);
  while (s.snapshot().running > 0) step(s);
  const auto whole = output(r.request, 1);
  EXPECT_EQ(tokens_of(key(1, 2), 1), std::vector<TokenId>(whole.begin() + 4, whole.end()));
  EXPECT_EQ(take<Token>().at(0).index, 4u);
  EXPECT_EQ(take<Finished>().at(0).output_tokens, 10u);
}

TEST_F(PreemptionTest, PreemptsEveryNSteps) {
  Scheduler s = make({.watermark_blocks = 0, .growth_blocks = 0, .preempt_every_n_steps = 3});
  start(s, request(1, 6));
  start(s, request(2, 6));
  for (int i = 0; i < 3; ++i) step(s);
  ASSERT_EQ(take<Preempted>().size(), 1u);
  EXPECT_EQ(take<Preempted>()[0].key, key(2)) << "the newest";
}

class TightPoolTest : public SchedulerTest {
 protected:
  TightPoolTest() : SchedulerTest(6) {}
};

TEST_F(TightPoolTest, TheNewestGivesWayAndTheOldestGoesOn) {
  for (const uint32_t depth : {1u, 2u}) {
    Scheduler s = make();
    events.clear();
    // Each takes two blocks and wants a third at its fourth row: there are no more.
    const auto of = [](uint64_t id) {
      DecodeRequest r = request(id, 5, static_cast<TokenId>(100 * (id % 10)));
      r.request.sampling.max_tokens = 8;
      return r;
    };
    for (uint64_t id = 1; id <= 3; ++id) start(s, of(10 * depth + id));
    std::deque<StepBatch> in_flight;
    for (int i = 0; i < 40; ++i) {
      in_flight.push_back(plan(s));
      if (in_flight.size() == depth) finish(s, in_flight.front()), in_flight.pop_front();
    }
    ASSERT_EQ(take<Preempted>().size(), 1u) << "depth " << depth;
    EXPECT_EQ(take<Preempted>()[0].key, key(10 * depth + 3));
    ASSERT_EQ(take<Finished>().size(), 2u);
    for (uint64_t id = 1; id <= 2; ++id) {
      auto expected = output(of(10 * depth + id).request);
      expected.erase(expected.begin());
      EXPECT_EQ(tokens_of(key(10 * depth + id)), expected);
    }
    while (!in_flight.empty()) finish(s, in_flight.front()), in_flight.pop_front();
    expect_nothing_held(s);
  }
}

TEST_F(TightPoolTest, LowerPriorityGivesWayFirst) {
  Scheduler s = make();
  for (uint64_t id = 1; id <= 3; ++id) {
    DecodeRequest r = request(id, 5, static_cast<TokenId>(100 * id));
    r.request.priority = id == 1 ? 5 : 0;
    start(s, r);
  }
  while (take<Preempted>().empty()) step(s);
  EXPECT_EQ(take<Preempted>()[0].key, key(1));
}

}  // namespace
}  // namespace baton::decode
