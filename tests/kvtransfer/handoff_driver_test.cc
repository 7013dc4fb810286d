#include "kvtransfer/handoff_driver.h"

#include <gmock/gmock.h>

#include "tests/fakes/mute_transport.h"
#include "tests/kvtransfer/handoff_fixture.h"

namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(HandoffDriverTest, PeerThatTakesNoMessageIsNotAdded) {
  bool mute = true;
  const auto driver = *HandoffDriver::create(
      config(3), std::make_unique<fakes::MuteTransport>(hub_->make_transport("h"), mute), sink_,
      nullptr);
  EXPECT_EQ(driver->add_peer(source_.driver->hello(), now_).error().code, Errc::kUnavailable);
  EXPECT_TRUE(driver->peers().empty());
  mute = false;
  EXPECT_TRUE(driver->add_peer(source_.driver->hello(), now_));
}

// A peer whose first message cannot be answered is lost, and what it says no longer counts.
TEST_F(HandoffDriverTest, TheFirstMessageOfAPeerThatTakesNoneIsNotBelieved) {
  bool mute = false;
  const auto driver = *HandoffDriver::create(
      config(3), std::make_unique<fakes::MuteTransport>(hub_->make_transport("h"), mute), source_,
      nullptr);
  const LoopbackFaults deaf{.drop_message = 1};
  hub_->set_faults(deaf);
  ASSERT_TRUE(sink_.driver->add_peer(driver->hello(), now_));
  hub_->set_faults({});
  ASSERT_TRUE(driver->add_peer(sink_.driver->hello(), now_));
  hub_->set_faults(deaf);
  settle({&sink_});  // it knows that it is known; what it says is lost
  hub_->set_faults({});
  ASSERT_TRUE(driver->begin({key(1), WorkerId{2}, kTokens, kHash, now_ + seconds(60)}, now_));
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{3}, now_));
  mute = true;
  driver->poll(now_);
  EXPECT_EQ(driver->source().waiting_blocks(), layout().blocks_for(kTokens)) << "nobody reads it";
  driver->poll(now_ + seconds(20));
  EXPECT_EQ(source_.sinks_lost, 1) << "once";
}

TEST_F(HandoffDriverTest, HandsOver) {
  pair(source_, sink_);
  EXPECT_EQ(source_.up.size(), 1u);
  EXPECT_EQ(sink_.driver->transport_in_force(WorkerId{1}), "loopback");
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  source_.hand_over(key(1), WorkerId{2}, now_);
  settle({&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 1u);
  EXPECT_EQ(sink_.joins[0].first_tokens, std::vector<TokenId>{9});
  EXPECT_EQ(sink_.wrong(), 0u);
  EXPECT_EQ(source_.source_releases, 1);
}

TEST_F(HandoffDriverTest, MappedMemoryIsCopiedAndCheckedInOnePass) {
  hub_->set_faults({.mapped = true});
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_, 32));
  source_.hand_over(key(1), WorkerId{2}, now_);
  settle({&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 1u);
  EXPECT_EQ(sink_.wrong(32), 0u);
}

TEST_F(HandoffDriverTest, MappedMemoryIsCopiedUnchecked) {
  hub_->set_faults({.mapped = true});
  for (const uint64_t read_bytes : {uint64_t{1}, uint64_t{1000}, uint64_t{1} << 20}) {
    Worker believing(*hub_, 10 + read_bytes, 16, [&](HandoffConfig& c) {
      c.verify_digests = false;
      c.read_bytes = read_bytes;
    });
    pair(source_, believing);
    const HandoffKey k = key(read_bytes);
    ASSERT_TRUE(believing.reserve(k, WorkerId{1}, now_, 32));
    source_.hand_over(k, WorkerId{10 + read_bytes}, now_);
    settle({&source_, &believing});
    ASSERT_EQ(believing.joins.size(), 1u);
    EXPECT_EQ(believing.wrong(32), 0u);
  }
}

// A long read leaves a short one its turn: each poll() copies a bit of both.
TEST_F(HandoffDriverTest, MappedReadsTakeTurns) {
  hub_->set_faults({.mapped = true});
  Worker slow(*hub_, 3, 16, [](HandoffConfig& c) {
    c.read_bytes = c.layout.block_bytes();
    c.window_bytes = 2 * c.layout.block_bytes();
  });
  pair(source_, slow);
  source_.hand_over(key(1), WorkerId{3}, now_);
  source_.hand_over(key(2), WorkerId{3}, now_);
  ASSERT_TRUE(slow.reserve(key(1), WorkerId{1}, now_));
  std::vector<BlockId> last = {BlockId{20}};  // the source's last, in other blocks here
  ASSERT_TRUE(slow.driver->reserve(
      {key(2), WorkerId{1}, last, 96, kTokens, kHash, now_ + seconds(10)}, now_));
  (void)source_.driver->poll(now_);
  EXPECT_TRUE(slow.driver->poll(now_));
  ASSERT_EQ(slow.joins.size(), 1u);
  EXPECT_EQ(slow.joins[0].key, key(2));
  settle({&source_, &slow});
  ASSERT_EQ(slow.joins.size(), 2u);
  EXPECT_EQ(slow.wrong(), 0u);
}

// One descriptor for each layer of a run of blocks, and one for a run that was parked.
TEST_F(HandoffDriverTest, DescriptorsAreAsFewAsRunsOfBlocks) {
  hub_->set_faults({.mapped = true});
  pair(source_, sink_);
  source_.ascending = sink_.ascending = true;
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  source_.compute(key(1), WorkerId{2}, now_, [&] { settle({&source_, &sink_}); });
  settle({&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 1u);
  EXPECT_EQ(sink_.joins[0].timings.segments, layout().num_layers());
  source_.hand_over(key(2), WorkerId{2}, now_);
  ASSERT_TRUE(sink_.reserve(key(2), WorkerId{1}, now_));
  settle({&source_, &sink_});
  ASSERT_EQ(sink_.joins.size(), 2u);
  EXPECT_EQ(sink_.joins[1].timings.segments, 1u);
  EXPECT_EQ(sink_.wrong(), 0u);
}

// Between the last layer and the join nothing is asked and answered.
TEST_F(HandoffDriverTest, GoodWeatherNeedsNoOtherMessages) {
  pair(source_, sink_);
  const auto before = messages_sent();
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  source_.compute(key(1), WorkerId{2}, now_, [&] { settle({&source_, &sink_}); });
  (void)source_.driver->poll(now_);
  // The sink needs nothing more of the source than what it has been sent by now.
  while (sink_.driver->poll(now_)) {
  }
  ASSERT_EQ(sink_.joins.size(), 1u);
  settle({&source_, &sink_});
  EXPECT_EQ(source_.source_releases, 1);
  auto sent = messages_sent();
  for (auto& [kind, count] : sent) count -= before.at(kind);
  std::erase_if(sent, [](const auto& entry) { return entry.second == 0; });
  EXPECT_EQ(sent, (std::map<std::string, int>{{"source announce", layout().num_layers()},
                                              {"source commit", 1},
                                              {"sink credit", 1},
                                              {"sink ack", 1}}));
}

// A source whose control thread is late says in one word what has become ready meanwhile.
TEST_F(HandoffDriverTest, ALateSourceGathersItsAnnounces) {
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  const int before = messages_sent().at("source announce");
  source_.compute(key(1), WorkerId{2}, now_, [] {});
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.joins.size(), 1u);
  EXPECT_EQ(messages_sent().at("source announce") - before, 1);
}

TEST_F(HandoffDriverTest, DamagedMappedMemoryIsNotBelieved) {
  hub_->set_faults({.mapped = true});
  pair(source_, sink_);
  source_.hand_over(key(1), WorkerId{2}, now_);
  source_.driver->cache()[layout().offset(BlockId{4}, 1)] ^= std::byte{1};
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  EXPECT_TRUE(sink_.joins.empty());
  ASSERT_EQ(sink_.sink_failures.size(), 1u);
  EXPECT_EQ(sink_.sink_failures[0].code, Errc::kDataCorrupt);
  ASSERT_EQ(source_.source_failures.size(), 1u);
  EXPECT_TRUE(source_.source_failures[0].suspect.has_value());
  EXPECT_THAT(sink_.metrics.serialize(),
              HasSubstr("baton_kv_digest_mismatches_total{transport=\"loopback\"} 2"));
}

TEST_F(HandoffDriverTest, IncompatibleWorkersAreRefused) {
  Hello theirs = sink_.driver->hello();
  theirs.numerics = "other";
  EXPECT_EQ(source_.driver->add_peer(theirs, now_).error().code, Errc::kUnsupported);
  EXPECT_TRUE(source_.driver->peers().empty());
}

TEST_F(HandoffDriverTest, WhatIsSaidBeforeTheOtherKnowsUsWaits) {
  ASSERT_TRUE(sink_.driver->add_peer(source_.driver->hello(), now_));
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  EXPECT_FALSE(sink_.driver->peer_up(WorkerId{1}));
  EXPECT_EQ(source_.driver->source().num_early_credits(), 0u);
  ASSERT_TRUE(source_.driver->add_peer(sink_.driver->hello(), now_));
  settle({&source_, &sink_});
  EXPECT_EQ(source_.driver->source().num_early_credits(), 1u);
  source_.hand_over(key(1), WorkerId{2}, now_);
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.joins.size(), 1u);
}

TEST_F(HandoffDriverTest, OnePollDoesABoundedPartOfALongRead) {
  Worker slow(*hub_, 3, 16, [](HandoffConfig& c) {
    c.protocol_max = kProtocolTurns - 1;
    c.read_bytes = c.layout.block_bytes();
    c.window_bytes = 2 * c.layout.block_bytes();
  });
  pair(source_, slow);
  source_.hand_over(key(1), WorkerId{3}, now_);
  ASSERT_TRUE(slow.reserve(key(1), WorkerId{1}, now_));
  (void)source_.driver->poll(now_);
  int polls = 0;
  while (slow.driver->poll(now_)) {
    ++polls;
    EXPECT_LE(slow.driver->sink().stats().read_bytes,
              (2 * static_cast<uint64_t>(polls) + 3) * layout().block_bytes());
  }
  EXPECT_GE(polls, 2);  // seven blocks, two at a time
  settle({&source_, &slow});
  EXPECT_EQ(slow.joins.size(), 1u);
}

TEST_F(HandoffDriverTest, ASilentPeerIsLostAndItsHandoffsEnd) {
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  pass(seconds(5), {&sink_});  // the source is stopped
  ASSERT_EQ(sink_.lost.size(), 1u);
  EXPECT_THAT(sink_.lost_why, HasSubstr("silent"));
  ASSERT_EQ(sink_.sink_failures.size(), 1u);
  EXPECT_EQ(sink_.sink_failures[0].code, Errc::kUnavailable);
  EXPECT_EQ(sink_.sink_releases, 1);
  // It goes on, notices that nobody hears it, and both can meet again.
  pass(seconds(5), {&source_, &sink_});
  EXPECT_EQ(source_.lost.size(), 1u);
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(2), WorkerId{1}, now_));
  source_.hand_over(key(2), WorkerId{2}, now_);
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.joins.size(), 1u);
}

TEST_F(HandoffDriverTest, HeartbeatsKeepQuietPeers) {
  pair(source_, sink_);
  pass(seconds(30), {&source_, &sink_});
  EXPECT_TRUE(source_.lost.empty());
  EXPECT_TRUE(sink_.driver->peer_up(WorkerId{1}));
}

TEST_F(HandoffDriverTest, AReportedDeathEndsItAtOnce) {
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  hub_->kill(source_.driver->hello().ranks[0].endpoint, true);
  settle({&sink_});
  EXPECT_EQ(sink_.lost.size(), 1u);
  EXPECT_EQ(sink_.sink_failures.size(), 1u);
}

TEST_F(HandoffDriverTest, NonsenseEndsTheConnection) {
  const std::unique_ptr<Transport> stranger = hub_->make_transport("h");
  ASSERT_TRUE(stranger->allocate(kBlocks * layout().block_bytes(), Sharing::kNone));
  Hello theirs = source_.driver->hello();
  theirs.worker = WorkerId{50};
  theirs.ranks[0].endpoint = stranger->endpoint();
  ASSERT_TRUE(sink_.driver->add_peer(theirs, now_));
  const PeerId to = *stranger->connect(sink_.driver->hello().ranks[0].endpoint, "sink");
  const std::byte nonsense[] = {std::byte{0xff}, std::byte{0x01}};
  ASSERT_TRUE(stranger->notify(to, nonsense));
  settle({&sink_});
  EXPECT_EQ(sink_.lost, std::vector{WorkerId{50}});
  EXPECT_THAT(sink_.lost_why, HasSubstr("hand-off message"));
}

TEST_F(HandoffDriverTest, AListenerMayCallBack) {
  pair(source_, sink_);
  sink_.on_joined = [this] {
    if (sink_.joins.size() < 3) {
      const HandoffKey next = key(sink_.joins.size() + 1);
      ASSERT_TRUE(sink_.reserve(next, WorkerId{1}, now_));
      source_.hand_over(next, WorkerId{2}, now_);
    }
  };
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  source_.hand_over(key(1), WorkerId{2}, now_);
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.joins.size(), 3u);
}

TEST_F(HandoffDriverTest, RefusalReachesTheSource) {
  pair(source_, sink_);
  source_.hand_over(key(1), WorkerId{2}, now_);
  sink_.driver->refuse(key(1), WorkerId{1}, milliseconds(40), now_);
  settle({&source_, &sink_});
  EXPECT_EQ(source_.refusals, std::vector{Duration(milliseconds(40))});
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  settle({&source_, &sink_});
  EXPECT_EQ(sink_.joins.size(), 1u);
}

TEST_F(HandoffDriverTest, MetricsTell) {
  pair(source_, sink_);
  ASSERT_TRUE(sink_.reserve(key(1), WorkerId{1}, now_));
  source_.hand_over(key(1), WorkerId{2}, now_);
  settle({&source_, &sink_});
  pass(seconds(1), {&source_, &sink_});
  const std::string text = sink_.metrics.serialize();
  for (const char* series :
       {"baton_kv_handoffs_ended_total{end=\"joined\",role=\"sink\"} 1",
        "baton_kv_peer_up{peer=\"1\",transport=\"loopback\"} 1",
        "baton_kv_messages_received_total{kind=\"commit\"} 1",
        "baton_kv_digest_mismatches_total{transport=\"loopback\"} 0",
        "baton_kv_leases_ended_total{of=\"source\"} 0", "baton_kv_exposed_transfer_seconds_count 1",
        "baton_kv_handoffs{role=\"sink\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(series));
  }
  EXPECT_THAT(source_.metrics.serialize(), HasSubstr("end=\"released\",role=\"source\"} 1"));
}

TEST_F(HandoffDriverTest, MetricsOfAPeerEndWithIt) {
  for (int i = 0; i < 3; ++i) {
    pair(source_, sink_);
    EXPECT_THAT(sink_.metrics.serialize(), HasSubstr("baton_kv_peer_up{peer=\"1\""));
    sink_.driver->remove_peer(WorkerId{1}, now_);
    source_.driver->remove_peer(WorkerId{2}, now_);
    EXPECT_THAT(sink_.metrics.serialize(), Not(HasSubstr("baton_kv_peer_up{")));
  }
}

TEST_F(HandoffDriverTest, StartupIsChecked) {
  HandoffConfig c;
  c.layout = layout();
  Worker& listener = source_;
  EXPECT_FALSE(HandoffDriver::create(c, hub_->make_transport("h"), listener, nullptr));
  c.worker = WorkerId{1};
  EXPECT_FALSE(HandoffDriver::create(c, hub_->make_transport("h"), listener, nullptr));
  c.num_blocks = 1;
  EXPECT_TRUE(HandoffDriver::create(c, hub_->make_transport("h"), listener, nullptr));
  c.layout.block_tokens = 0;
  EXPECT_FALSE(HandoffDriver::create(c, hub_->make_transport("h"), listener, nullptr));
}

}  // namespace
}  // namespace baton::kvtransfer
