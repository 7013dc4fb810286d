#include <gtest/gtest.h>

#include <vector>

#include "tests/kvtransfer/handoff_fixture.h"

// Hand-offs whose reads travel in turns, as over the network.
namespace baton::kvtransfer {
namespace {

class HandoffTurnsTest : public HandoffDriverTest {
 protected:
  HandoffTurnsTest() {
    hub_->set_faults({.get_delay = milliseconds(20), .turn_bytes = 700});
    pair(source_, sink_);
  }
};

// However long they take: a descriptor for each layer of a run of blocks, and one for a run that
// was parked.
TEST_F(HandoffTurnsTest, DescriptorsAreAsFewAsRunsOfBlocks) {
  source_.ascending = sink_.ascending = true;
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  source_.compute(key(1), WorkerId{2}, now_, [&] { settle({&source_, &sink_}); });
  pass(seconds(3), {&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 1u);
  EXPECT_EQ(sink_.joins[0].timings.segments, layout().num_layers());
  EXPECT_EQ(sink_.joins[0].timings.reads, layout().num_layers());
  source_.hand_over(key(2), WorkerId{2}, now_);
  ASSERT_TRUE(sink_.reserve(key(2), WorkerId{1}, now_));
  pass(seconds(3), {&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 2u);
  EXPECT_EQ(sink_.joins[1].timings.segments, 1u);
  EXPECT_EQ(sink_.joins[1].timings.reads, 1u);
  EXPECT_EQ(sink_.wrong(), 0u);
}

// With a worker of the protocol before, either way: reads in pieces.
TEST_F(HandoffTurnsTest, OlderWorkersAreReadInPieces) {
  const auto old = [](HandoffConfig& c) {
    c.protocol_max = kProtocolTurns - 1;
    c.read_bytes = c.layout.block_bytes();
  };
  const auto newer = [](HandoffConfig& c) { c.read_bytes = c.layout.block_bytes(); };
  Worker old_source(*hub_, 11, 16, old), old_sink(*hub_, 12, 16, old);
  Worker new_source(*hub_, 13, 16, newer), new_sink(*hub_, 14, 16, newer);
  const std::pair<Worker*, Worker*> pairs[] = {
      {&old_source, &new_sink}, {&new_source, &old_sink}, {&new_source, &new_sink}};
  for (uint64_t request = 1; const auto& [from, to] : pairs) {
    pair(*from, *to);
    const WorkerId source = from->driver->hello().worker, sink = to->driver->hello().worker;
    from->hand_over(key(request), sink, now_);
    const size_t before = to->joins.size();
    ASSERT_TRUE(to->reserve(key(request), source, now_));
    pass(seconds(2), {from, to});
    ASSERT_EQ(to->joins.size(), before + 1);
    EXPECT_EQ(to->joins.back().timings.reads, request < 3 ? 7u : 1u);
    EXPECT_EQ(to->wrong(), 0u);
    ++request;
  }
}

// Its blocks stay where they are until nothing can arrive for them any more, which is soon.
TEST_F(HandoffTurnsTest, CancelledInMidReadItIsQuarantinedUntilTheReadEnds) {
  source_.hand_over(key(1), WorkerId{2}, now_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  ASSERT_EQ(sink_.driver->sink().reads_in_flight(), 1u);
  for (int i = 0; i < 3; ++i) {  // some turns come
    now_ += milliseconds(20);
    settle({&source_, &sink_});
  }
  ASSERT_EQ(sink_.driver->sink().reads_in_flight(), 1u);
  ASSERT_TRUE(sink_.driver->cancel(key(1), now_));
  EXPECT_EQ(sink_.sink_failures.size(), 1u);
  EXPECT_EQ(sink_.sink_releases, 0);
  EXPECT_FALSE(sink_.reserve(key(2), WorkerId{1}, now_));  // in the same blocks
  now_ += milliseconds(21);                                // what was on its way has arrived
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.sink_releases, 1);
  EXPECT_EQ(sink_.driver->sink().reads_in_flight(), 0u);
  const std::vector<std::byte> before(sink_.driver->cache().begin(), sink_.driver->cache().end());
  pass(seconds(2), {&source_, &sink_});
  EXPECT_TRUE(std::ranges::equal(before, sink_.driver->cache()));
  EXPECT_TRUE(sink_.reserve(key(2), WorkerId{1}, now_));
}

// The digest is of what arrived, whenever it did: what the source's blocks hold later, when a later
// turn is read, does not pass for what was announced.
TEST_F(HandoffTurnsTest, BlocksUsedAgainInMidReadAreNotBelieved) {
  source_.hand_over(key(1), WorkerId{2}, now_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  for (int i = 0; i < 4; ++i) {
    now_ += milliseconds(20);
    settle({&source_, &sink_});
  }
  ASSERT_TRUE(sink_.joins.empty());
  std::ranges::fill(source_.driver->cache(), std::byte{3});
  pass(seconds(5), {&source_, &sink_});
  EXPECT_TRUE(sink_.joins.empty());
  ASSERT_EQ(sink_.sink_failures.size(), 1u);
  EXPECT_EQ(sink_.sink_failures[0].code, Errc::kDataCorrupt);
}

// What is damaged on the way, at any place of the stream, is read again.
TEST_F(HandoffTurnsTest, DamagedTurnsAreReadAgain) {
  hub_->set_faults({.corrupt_get = 0.3, .get_delay = milliseconds(5), .turn_bytes = 500});
  int joined = 0;
  for (uint64_t request = 1; request <= 40; ++request) {
    source_.hand_over(key(request), WorkerId{2}, now_);
    const size_t before = sink_.joins.size();
    ASSERT_TRUE(sink_.reserve(key(request), WorkerId{1}, now_));
    pass(seconds(1), {&source_, &sink_});
    if (sink_.joins.size() == before) continue;
    ++joined;
    EXPECT_EQ(sink_.wrong(), 0u);
  }
  EXPECT_GT(joined, 25);
  EXPECT_LT(joined, 40);  // twice in a row, some time
  EXPECT_GT(sink_.driver->sink().stats().rereads, 5u);
}

}  // namespace
}  // namespace baton::kvtransfer
