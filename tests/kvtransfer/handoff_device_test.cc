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

TEST_F(HandoffDeviceTest, AReadTakesTurns) {
  decode_ = make(12, false, [](HandoffConfig& c) { c.device_read_bytes = c.layout.block_bytes(); });
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(1)});
  for (const uint64_t request : {1, 2}) {
    ASSERT_TRUE(decode_->driver->reserve({key(request),
                                          WorkerId{11},
                                          {BlockId{static_cast<uint32_t>(request)}},
                                          0,
                                          16,
                                          kHash,
                                          now_ + seconds(10)},
                                         now_));
  }
  std::vector<BlockId> long_run;
  for (uint32_t b = 10; b < 30; ++b) long_run.emplace_back(b);
  ASSERT_TRUE(decode_->driver->reserve(
      {key(3), WorkerId{11}, long_run, 0, 320, kHash, now_ + seconds(10)}, now_));
  settle_gpus();
  const std::vector<uint64_t> zeros(3 * 20);  // of memory that nobody wrote: a digest that is wrong
  ASSERT_TRUE(
      prefill_->driver->begin({key(3), WorkerId{12}, 320, kHash, now_ + seconds(10)}, now_));
  ASSERT_TRUE(prefill_->driver->layers_done(key(3), {0, 3, 0, long_run, zeros}, now_));
  settle_gpus();
  // It has as many turns as blocks, one at a time: another's read is between them.
  EXPECT_EQ(gpus_.most_at_once(), 1u);
  EXPECT_EQ(stats().reads, 1u);
  int turns = 0;
  while (stats().digest_mismatches == 0 && ++turns < 100) {
    now_ = std::max(now_, gpus_.next_event());
    settle_gpus();
  }
  EXPECT_EQ(turns, 20);
}

TEST_F(HandoffDeviceTest, NeverMoreThanAFewAtOnce) {
  pair_gpus();
  gpus_.set_faults({.delay = milliseconds(5)});
  std::vector<uint64_t> digests(3);
  for (uint32_t i = 0; i < 12; ++i) {
    const BlockId block{i};
    const SinkReserve r{key(i), WorkerId{11}, {block}, 0, 16, kHash, now_ + seconds(10)};
    ASSERT_TRUE(decode_->driver->reserve(r, now_));
    settle_gpus();
    ASSERT_TRUE(
        prefill_->driver->begin({key(i), WorkerId{12}, 16, kHash, now_ + seconds(10)}, now_));
    for (uint32_t layer = 0; layer < 3; ++layer) {
      const KvRange cell{layer, layer + 1, 0, 16};
      write_kv(layout(), prefill_->cache.data(), {{&block, 1}, 0}, cell, kSeed);
      digests[layer] = digest_range(layout(), prefill_->cache.data(), {{&block, 1}, 0}, cell);
    }
    ASSERT_TRUE(prefill_->driver->layers_done(key(i), {0, 3, 0, {&block, 1}, digests}, now_));
    const TokenId first = 1;
    ASSERT_TRUE(prefill_->driver->finished(key(i), {&first, 1}, now_));
  }
  settle_gpus();
  EXPECT_EQ(gpus_.most_at_once(), kMaxDeviceReads);
  EXPECT_TRUE(*decode_->driver->arm()) << "what waits for room does not spin";
  for (int i = 0; i < 100 && decode_->joins.size() < 12; ++i) {
    now_ = std::max(now_, gpus_.next_event());
    settle_gpus();
  }
  EXPECT_EQ(decode_->joins.size(), 12u);
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
