// Steady decoding takes nothing from the heap.
#include <gtest/gtest.h>

#include "tests/decode/scheduler_fixture.h"
#include "tests/fakes/count_allocations.h"

namespace baton::decode {
namespace {

using AllocationTest = SchedulerTest;

TEST_F(AllocationTest, NothingIsAllocatedPerToken) {
  Scheduler s = make();
  for (uint64_t id = 1; id <= 3; ++id) {
    DecodeRequest r = request(id, 5, static_cast<TokenId>(100 * id));
    r.request.sampling.max_tokens = 15;
    start(s, r);
  }
  StepBatch batch;
  const auto one_step = [&] {
    batch.clear();
    events.clear();
    engine::StepBudget budget{.rows = 64, .sequences = 64};
    s.plan(budget, batch, events);
    for (engine::StepSample& sample : batch.samples) sample.result.token = 1;
    s.on_step_done(batch, now, events);
    EXPECT_EQ(events.size(), 3u);
  };
  for (int i = 0; i < 3; ++i) one_step();
  // As a batch that has been used for long: it has seen longer tables.
  for (engine::StepSequence& sequence : batch.sequences) sequence.block_table.reserve(16);
  const uint64_t before = allocations;
  for (int i = 0; i < 9; ++i) one_step();  // across two block boundaries
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace baton::decode
