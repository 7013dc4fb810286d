#include <gmock/gmock.h>
#include <poll.h>

#include "kvtransfer/codec.h"
#include "tests/fakes/fake_devices.h"
#include "tests/kvtransfer/handoff_fixture.h"

// Whole drivers whose caches are in the memory of GPUs.
namespace baton::kvtransfer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HandoffDeviceTest : public HandoffDriverTest {
 protected:
  using Change = std::function<void(HandoffConfig&)>;
  std::unique_ptr<Worker> make(uint64_t id, bool is_read, const Change& change = {},
                               const std::string& host = "h") {
    auto reads = gpus_.make_reads(layout(), kBlocks, is_read);
    return std::make_unique<Worker>(*hub_, id, std::move(reads), gpus_.last_memory(), change, host);
  }
  void pair_gpus() { pair(*prefill_, *decode_); }
  void settle_gpus() {
    gpus_.advance(now_);
    settle({prefill_.get(), decode_.get()});
  }
  // `count` blocks of a prompt of its own, from `first` on: granted, written, announced, finished.
  void hand_over(const HandoffKey& k, uint32_t first, uint32_t count) {
    std::vector<BlockId> blocks;
    for (uint32_t b = 0; b < count; ++b) blocks.emplace_back(first + b);
    const uint32_t tokens = count * layout().block_tokens;
    const TimePoint deadline = now_ + seconds(10);
    ASSERT_TRUE(
        decode_->driver->reserve({k, WorkerId{11}, blocks, 0, tokens, kHash, deadline}, now_));
    ASSERT_TRUE(prefill_->driver->begin({k, WorkerId{12}, tokens, kHash, deadline}, now_));
    std::vector<uint64_t> digests;
    for (uint32_t layer = 0; layer < layout().num_layers(); ++layer) {
      for (uint32_t b = 0; b < count; ++b) {
        const KvRange cell{layer, layer + 1, b * layout().block_tokens,
                           (b + 1) * layout().block_tokens};
        write_kv(layout(), prefill_->cache.data(), {blocks, 0}, cell, kSeed);
        digests.push_back(digest_range(layout(), prefill_->cache.data(), {blocks, 0}, cell));
      }
    }
    const TokenId token = 1;
    ASSERT_TRUE(
        prefill_->driver->layers_done(k, {0, layout().num_layers(), 0, blocks, digests}, now_));
    ASSERT_TRUE(prefill_->driver->finished(k, {&token, 1}, now_));
  }
  // From one end of a read to the next.
  void run_until(const std::function<bool()>& done) {
    for (int i = 0; i < 200 && !done(); ++i) {
      if (gpus_.next_event() != TimePoint::max()) now_ = std::max(now_, gpus_.next_event());
      settle_gpus();
    }
  }
  const SinkStats& stats() const { return decode_->driver->sink().stats(); }

  FakeDevices gpus_;
  std::unique_ptr<Worker> prefill_ = make(11, true), decode_ = make(12, false);
};

TEST_F(HandoffDeviceTest, ReadsIntoItsOwnGpu) {
  pair_gpus();
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->compute(key(1), WorkerId{12}, now_, [&] { settle_gpus(); });
  settle_gpus();
  ASSERT_EQ(decode_->joins.size(), 1u);
  EXPECT_EQ(decode_->wrong(), 0u);
  EXPECT_EQ(prefill_->source_releases, 1);
  EXPECT_EQ(stats().reads, layout().num_layers());
}

TEST_F(HandoffDeviceTest, SaysHowItReads) {
  pair_gpus();
  EXPECT_EQ(decode_->driver->transport_in_force(WorkerId{11}), "fake_ipc");
  EXPECT_EQ(prefill_->driver->transport_in_force(WorkerId{12}), "none");
  EXPECT_THAT(decode_->metrics.serialize(),
              HasSubstr("baton_kv_peer_up{peer=\"b\",transport=\"fake_ipc\"} 1"));
  EXPECT_TRUE(decode_->driver->cache().empty());
}

TEST_F(HandoffDeviceTest, TheHelloCrossesTheWire) {
  const Endpoint& endpoint = prefill_->driver->hello().ranks[0].endpoint;
  EXPECT_EQ(endpoint.region.bytes, 0u);
  EXPECT_EQ(endpoint.device.bytes, kBlocks * layout().block_bytes());
  EXPECT_EQ(prefill_->driver->hello().ranks[0].num_blocks, kBlocks);
  EXPECT_EQ(decode_->driver->hello().ranks[0].num_blocks, 0u);
  for (const Worker* w : {prefill_.get(), decode_.get()}) {
    const auto back = decode_hello(encode(w->driver->hello()));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, w->driver->hello());
  }
}

TEST_F(HandoffDeviceTest, AReadIsCutIntoTurnsOneAtATime) {
  decode_ = make(12, false, [](HandoffConfig& c) { c.device_read_bytes = c.layout.block_bytes(); });
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(1)});
  hand_over(key(3), 10, 20);
  settle_gpus();
  EXPECT_EQ(stats().reads, 1u);
  int turns = 0;
  run_until([&] { return !decode_->joins.empty() || ++turns > 20; });
  EXPECT_EQ(turns, 20);
  EXPECT_EQ(gpus_.most_at_once(), 1u);
}

TEST_F(HandoffDeviceTest, NeverMoreThanAFewAtOnce) {
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(5)});
  for (uint32_t i = 0; i < 12; ++i) hand_over(key(i), i, 1);
  settle_gpus();
  EXPECT_EQ(gpus_.most_at_once(), kMaxDeviceReads);
  EXPECT_TRUE(*decode_->driver->arm()) << "what waits for room does not spin";
  run_until([&] { return decode_->joins.size() == 12; });
  EXPECT_EQ(decode_->joins.size(), 12u);
}

// More long reads than there are turns at once, and then a short one.
TEST_F(HandoffDeviceTest, AShortReadIsNotDelayedByLongOnes) {
  decode_ = make(12, false, [](HandoffConfig& c) { c.device_read_bytes = c.layout.block_bytes(); });
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(5)});
  for (uint32_t i = 0; i < 5; ++i) hand_over(key(i), 6 * i, 6);
  settle_gpus();
  hand_over(key(9), 30, 1);
  settle_gpus();
  run_until([&] { return decode_->joins.size() == 6; });
  ASSERT_EQ(decode_->joins.size(), 6u);
  EXPECT_EQ(decode_->joins[0].key, key(9));
}

TEST_F(HandoffDeviceTest, WakesWhoWaitsForIt) {
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(5)});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  ASSERT_TRUE(*decode_->driver->arm());
  pollfd readable{decode_->driver->event_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&readable, 1, 0), 0);
  gpus_.advance(gpus_.next_event());
  EXPECT_EQ(::poll(&readable, 1, 0), 1);
  EXPECT_FALSE(*decode_->driver->arm());
}

TEST_F(HandoffDeviceTest, WhatDoesNotMatchIsReadAgainOnceAndThenRefused) {
  pair_gpus();
  gpus_.set_faults({.corrupt_read = 1});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  ASSERT_EQ(decode_->sink_failures.size(), 1u);
  EXPECT_EQ(decode_->sink_failures[0].code, Errc::kDataCorrupt);
  EXPECT_EQ(stats().digest_mismatches, 2u);
  EXPECT_EQ(decode_->sink_releases, 1);
  ASSERT_EQ(prefill_->source_failures.size(), 1u);
}

TEST_F(HandoffDeviceTest, AFailedReadIsReadAgainOnceAndThenEnds) {
  pair_gpus();
  gpus_.set_faults({.fail_read = 1});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  ASSERT_EQ(decode_->sink_failures.size(), 1u);
  EXPECT_THAT(decode_->sink_failures[0].message, HasSubstr("the copy failed"));
  EXPECT_EQ(stats().read_failures, 2u);
}

TEST_F(HandoffDeviceTest, WithoutDigestsAnythingIsBelieved) {
  decode_ = make(12, false, [](HandoffConfig& c) { c.verify_digests = false; });
  pair_gpus();
  gpus_.set_faults({.corrupt_read = 1});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  ASSERT_EQ(decode_->joins.size(), 1u);
  EXPECT_GT(decode_->wrong(), 0u);
}

// Blocks may be written until then, and the dead one's memory is looked at.
TEST_F(HandoffDeviceTest, ASourceThatDiesIsUnmappedOnceNothingReadsIt) {
  pair_gpus();
  EXPECT_EQ(gpus_.mappings(), 1u);
  gpus_.set_faults({.delay = seconds(1)});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  hub_->kill(prefill_->driver->hello().ranks[0].endpoint, true);
  prefill_.reset();
  settle({decode_.get()});
  EXPECT_THAT(decode_->lost, ElementsAre(WorkerId{11}));
  ASSERT_EQ(decode_->sink_failures.size(), 1u);
  EXPECT_EQ(decode_->sink_releases, 0) << "a read is under way";
  EXPECT_EQ(gpus_.mappings(), 1u);
  gpus_.advance(gpus_.next_event());
  settle({decode_.get()});
  EXPECT_EQ(decode_->sink_releases, 1);
  EXPECT_EQ(gpus_.mappings(), 0u);
}

TEST_F(HandoffDeviceTest, ACancelledReadEndsWithItsTurn) {
  decode_ = make(12, false, [](HandoffConfig& c) { c.device_read_bytes = c.layout.block_bytes(); });
  pair_gpus();
  gpus_.set_faults({.delay = seconds(1)});
  ASSERT_TRUE(decode_->reserve(key(1), WorkerId{11}, now_));
  prefill_->hand_over(key(1), WorkerId{12}, now_);
  settle_gpus();
  ASSERT_TRUE(decode_->driver->cancel(key(1), now_));
  settle_gpus();
  EXPECT_EQ(decode_->sink_releases, 0);
  gpus_.advance(gpus_.next_event());  // the first of seven
  settle({decode_.get()});
  EXPECT_EQ(decode_->sink_releases, 1);
  EXPECT_EQ(decode_->driver->sink().reads_in_flight(), 0u);
}

TEST_F(HandoffDeviceTest, WhatCannotBeMappedIsNoPair) {
  gpus_.set_faults({.fail_map = true});
  const status paired = decode_->driver->add_peer(prefill_->driver->hello(), now_);
  ASSERT_FALSE(paired);
  EXPECT_THAT(paired.error().message, HasSubstr("cannot read the memory of GPU-"));
  EXPECT_TRUE(decode_->driver->peers().empty());
}

TEST_F(HandoffDeviceTest, WhatCannotBeReachedIsNotKeptMapped) {
  Hello nowhere = prefill_->driver->hello();
  nowhere.ranks[0].endpoint.address = "99";
  EXPECT_FALSE(decode_->driver->add_peer(nowhere, now_));
  EXPECT_EQ(gpus_.mappings(), 0u);
}

TEST_F(HandoffDeviceTest, OthersAreRefused) {
  for (Worker* gpu : {prefill_.get(), decode_.get()}) {
    const status here = gpu->driver->add_peer(source_.driver->hello(), now_);
    ASSERT_FALSE(here);
    EXPECT_THAT(here.error().message, HasSubstr("'device', there 'host'"));
    const status there = source_.driver->add_peer(gpu->driver->hello(), now_);
    ASSERT_FALSE(there);
    EXPECT_THAT(there.error().message, HasSubstr("'host', there 'device'"));
  }
  const auto elsewhere = make(13, true, {}, "other");
  const status far = decode_->driver->add_peer(elsewhere->driver->hello(), now_);
  ASSERT_FALSE(far);
  EXPECT_THAT(far.error().message, HasSubstr("'h', there 'other'"));
  Worker old(*hub_, 14, 16, [](HandoffConfig& c) { c.protocol_max = kProtocolDevice - 1; });
  const status before = old.driver->add_peer(prefill_->driver->hello(), now_);
  ASSERT_FALSE(before);
  EXPECT_THAT(before.error().message, HasSubstr("protocol here is '2..4', there '5..5'"));
  EXPECT_EQ(gpus_.mappings(), 0u);
}

}  // namespace
}  // namespace baton::kvtransfer
