#include "prefill/service.h"

#include <gtest/gtest.h>

#include <numeric>

#include "common/kvcache/digest.h"
#include "common/net/protocol.h"
#include "kvtransfer/loopback_transport.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/fake_service_host.h"

namespace baton::prefill {
namespace {

constexpr uint32_t kBlock = 4, kLayers = 2, kPoolBlocks = 16, kSlots = 6;
constexpr WorkerId kSource{1}, kSink{2};
const TimePoint kNow{seconds(100)};

kvtransfer::HandoffConfig handoff_config(WorkerId worker) {
  kvtransfer::HandoffConfig c;
  c.worker = worker;
  c.model_key = "m";
  c.numerics = "n";
  c.layout = kvcache::KvLayout::full_kv(kLayers, 1, 16, DType::kBF16, kBlock);
  c.num_blocks = kPoolBlocks;
  return c;
}

// A prefill service whose engine is a fake, its hand-off, and a decode worker's hand-off.
class ServiceTest : public testing::Test, private fakes::DeafListener {
 protected:
  ServiceTest() {
    source_ = *kvtransfer::HandoffDriver::create(handoff_config(kSource), hub_->make_transport("h"),
                                                 *this, nullptr);
    sink_ = *kvtransfer::HandoffDriver::create(handoff_config(kSink), hub_->make_transport("h"),
                                               deaf_, nullptr);
    SchedulerConfig config;
    config.limits = {.max_rows = 64, .max_sequences = 8, .max_slots = kSlots, .max_context = 1000};
    config.always_digest = true;
    service_.emplace(
        config, Resources{pool_, hasher_, digests_, slots_}, *source_, host_,
        [](engine::HandOver&&, TimePoint) { FAIL() << "nothing is decoded here"; }, metrics_);
    EXPECT_TRUE(source_->add_peer(sink_->hello(), kNow));
    EXPECT_TRUE(sink_->add_peer(source_->hello(), kNow));
    settle();
  }

  PrefillRequest request(uint64_t id, uint32_t tokens) const {
    PrefillRequest r;
    r.request.key = {RouterId{1}, RequestId{id}, Generation{1}};
    r.request.tokens.resize(tokens);
    std::iota(r.request.tokens.begin(), r.request.tokens.end(), 1);
    r.request.prompt_tokens = tokens;
    r.request.sampling.max_tokens = 10;
    r.request.deadline = kNow + seconds(60);
    return r;
  }
  // As a decode worker does before the prompt is submitted.
  void reserve(const PrefillRequest& r) {
    kvtransfer::SinkReserve reserve{.key = r.request.key, .source = kSource};
    reserve.num_tokens = r.request.num_tokens();
    for (uint32_t i = 0; i * kBlock < reserve.num_tokens; ++i) reserve.blocks.emplace_back(i);
    reserve.token_hash = kvcache::hash_tokens(r.request.tokens);
    reserve.deadline = r.request.deadline;
    ASSERT_TRUE(sink_->reserve(reserve, kNow));
  }
  engine::StepBatch plan() {
    engine::StepBatch batch;
    engine::StepBudget budget{.rows = 64, .sequences = 8};
    service_->plan(budget, batch, kNow);
    return batch;
  }
  void finish(engine::StepBatch& batch) {
    fake_.run(batch);
    for (uint32_t layer = 0; layer < kLayers; ++layer) service_->on_layer(batch, layer, kNow);
    service_->on_done(batch, kNow);
  }
  // Computed, and in the prefix cache.
  PrefillRequest cache_prompt() {
    PrefillRequest r = request(1, 16);
    r.sample = false;
    service_->submit(r, WorkerId(), true, kNow);
    engine::StepBatch batch = plan();
    finish(batch);
    return r;
  }
  void settle() {
    for (int quiet = 0; quiet < 3;) {
      bool more = false;
      for (auto* d : {source_.get(), sink_.get()}) more |= d->poll(kNow) || !*d->arm();
      quiet = more ? 0 : quiet + 1;
    }
  }
  uint32_t blocks_found(const PrefillRequest& r) {
    std::vector<kvcache::PrefixHash> hashes;
    hasher_.block_hashes("", r.request.tokens, hashes);
    return pool_.peek_prefix(hashes);
  }

  void source_released(const kvtransfer::SourceReleased& r) override {
    service_->source_released(r);
  }
  void source_failed(const kvtransfer::SourceFailed& f) override { service_->source_failed(f); }
  void source_sink_lost(const RequestKey& key, const Error& why, TimePoint) override {
    service_->source_sink_lost(key, why, kNow);
  }

  std::unique_ptr<kvtransfer::LoopbackHub> hub_ = kvtransfer::make_loopback_hub();
  fakes::DeafListener deaf_;
  std::unique_ptr<kvtransfer::HandoffDriver> source_, sink_;
  fakes::FakeServiceHost host_;
  Metrics metrics_;
  kvcache::BlockPool pool_{kPoolBlocks};
  kvcache::PrefixHasher hasher_{{"w", "", "t"}, kBlock};
  kvcache::DigestTable digests_{kPoolBlocks, kLayers};
  engine::SlotAllocator slots_{kSlots};
  fakes::FakeEngine fake_{kPoolBlocks, kBlock, kLayers, kSlots};
  std::optional<Service> service_;
};

// The decode side's words travel over another connection, and may overtake what waits here.
TEST_F(ServiceTest, FirstTokensGoOutFirst) {
  const PrefillRequest r = request(1, 10);
  reserve(r);
  settle();
  service_->submit(r, kSink, true, kNow);
  engine::StepBatch batch = plan();
  host_.frames.clear();
  finish(batch);
  ASSERT_EQ(host_.frames.size(), 2u);
  EXPECT_EQ(host_.frames[0].tokens().tokens_size(), 1);
  EXPECT_TRUE(host_.frames[1].has_prefill_done());
}

// A request whose decode side has ended it is not told of any more: what the prompt took must be
// there by then.
TEST_F(ServiceTest, WhatThePromptTookComesWithItsFirstTokens) {
  host_.router_protocol = net::kProtocolDoneWithTokens;
  (void)cache_prompt();
  const PrefillRequest r = request(2, 24);
  reserve(r);
  settle();
  service_->submit(r, kSink, true, kNow);
  engine::StepBatch batch = plan();
  host_.frames.clear();
  finish(batch);
  ASSERT_EQ(host_.frames.size(), 1u);
  const proto::Tokens& told = host_.frames[0].tokens();
  EXPECT_EQ(told.tokens_size(), 1);
  ASSERT_EQ(told.prefill_done_size(), 1);
  EXPECT_EQ(told.prefill_done(0).request(), r.request.key.request.value);
  EXPECT_EQ(told.prefill_done(0).generation(), r.request.key.generation.value);
  EXPECT_GT(told.prefill_done(0).cached_tokens(), 0u);
}

// The fake engine's digests are not those of the cache's bytes, so whatever a sink reads is wrong.
// A router hears of them what it cannot know itself.
TEST_F(ServiceTest, PromptsThatOtherRoutersSentAreCounted) {
  const auto expect = [&](RouterId told, uint64_t prompts, uint64_t tokens, uint64_t cached) {
    const Taken taken = service_->taken_from_others(told);
    EXPECT_EQ(taken.prompts, prompts);
    EXPECT_EQ(taken.tokens, tokens);
    EXPECT_EQ(taken.cached_tokens, cached);
  };
  cache_prompt();
  PrefillRequest r = request(2, 20);
  r.request.key.router = RouterId{2};
  r.sample = false;
  service_->submit(r, WorkerId(), true, kNow);
  expect(RouterId{1}, 1, 20, 0);
  engine::StepBatch batch = plan();
  expect(RouterId{1}, 1, 20, 16);
  expect(RouterId{2}, 1, 16, 0);
  expect(RouterId{3}, 2, 36, 16);
  finish(batch);
  service_->cancel_router(RouterId{2}, kNow);  // it was lost: what it had sent was sent
  expect(RouterId{1}, 1, 20, 16);
  expect(RouterId{2}, 2, 36, 16);
}

TEST_F(ServiceTest, CachedBlocksThatDoNotMatchAreForgottenWhileTheRestIsComputed) {
  const PrefillRequest first = cache_prompt();
  engine::StepBatch batch;
  ASSERT_TRUE(service_->idle());
  ASSERT_EQ(blocks_found(first), 4u);

  const PrefillRequest second = request(2, 24);
  reserve(second);
  settle();
  service_->submit(second, kSink, true, kNow);
  batch = plan();
  ASSERT_EQ(batch.sequences.at(0).position, 16u) << "the cached blocks are announced";
  host_.frames.clear();
  host_.works_added = 0;
  settle();
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_TRUE(host_.frames[0].failed().retryable());
  EXPECT_GT(host_.works_added, 0) << "others may use its room";
  EXPECT_EQ(blocks_found(second), 0u) << "a retry would read them again";
  finish(batch);
  EXPECT_EQ(blocks_found(second), 0u);
  EXPECT_EQ(pool_.counts().active, 0u);
  EXPECT_TRUE(service_->idle());
}

// A retry would go on behind a first token that was computed from damaged KV.
TEST_F(ServiceTest, AnAnswerFromCachedBlocksThatDoNotMatchEnds) {
  (void)cache_prompt();
  engine::StepBatch batch;
  for (const uint32_t tokens : {24u, 16u}) {  // the last of 16 tokens is computed again
    const PrefillRequest r = request(tokens, tokens);
    reserve(r);
    settle();
    service_->submit(r, kSink, true, kNow);
    batch = plan();
    host_.frames.clear();
    finish(batch);
    settle();
    ASSERT_FALSE(host_.frames.empty());
    EXPECT_TRUE(host_.frames.front().has_tokens());
    ASSERT_TRUE(host_.frames.back().has_failed());
    EXPECT_EQ(host_.frames.back().failed().code(), static_cast<uint32_t>(Errc::kDataCorrupt));
    EXPECT_EQ(host_.frames.back().failed().retryable(), tokens == 16)
        << "nothing is cached any more the second time";
    EXPECT_TRUE(service_->idle());
  }
}

TEST_F(ServiceTest, KvOutlivesItsSinkAndIsReadByAnother) {
  host_.router_protocol = net::kProtocolRetarget;
  const PrefillRequest r = request(1, 10);
  reserve(r);
  settle();
  service_->submit(r, kSink, true, kNow);
  engine::StepBatch batch = plan();
  source_->remove_peer(kSink, kNow);
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_EQ(host_.frames[0].sink_lost().request(), 1u);
  EXPECT_EQ(host_.frames[0].sink_lost().generation(), r.request.key.generation.value);
  EXPECT_EQ(service_->snapshot().running, 1u) << "it computes on";

  RequestKey renamed = r.request.key;
  ++renamed.generation.value;
  service_->retarget(r.request.key, renamed.generation, kSink, kNow);
  EXPECT_FALSE(service_->has(r.request.key));
  ASSERT_TRUE(service_->has(renamed));
  host_.frames.clear();
  finish(batch);  // what was in flight belongs to the new name
  ASSERT_EQ(host_.frames.size(), 2u);
  EXPECT_EQ(host_.frames[0].tokens().tokens(0).generation(), renamed.generation.value);
  EXPECT_EQ(service_->snapshot().held, 1u);
  service_->cancel(renamed, kNow);
  EXPECT_TRUE(service_->idle());
  EXPECT_EQ(pool_.counts().active, 0u);
}

TEST_F(ServiceTest, RetargetToAGenerationThatIsHereOrOlderChangesNothing) {
  const PrefillRequest r = request(1, 10);
  service_->submit(r, kSink, true, kNow);
  const Generation current = r.request.key.generation;
  service_->retarget(r.request.key, current, kSink, kNow);
  ASSERT_TRUE(service_->has(r.request.key));
  host_.frames.clear();
  service_->retarget(r.request.key, Generation{current.value - 1}, kSink, kNow);
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_TRUE(host_.frames[0].has_failed());
  EXPECT_TRUE(service_->has(r.request.key));
  service_->cancel(r.request.key, kNow);
  EXPECT_TRUE(service_->idle());
  EXPECT_EQ(pool_.counts().active, 0u);
}

TEST_F(ServiceTest, RetargetOfWhatIsGoneIsAnsweredUnderItsNewName) {
  const PrefillRequest r = request(1, 10);
  service_->retarget(r.request.key, Generation{7}, kSink, kNow);
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_EQ(host_.frames[0].failed().generation(), 7u);
  EXPECT_TRUE(host_.frames[0].failed().retryable());
}

TEST_F(ServiceTest, ARouterOfTheOldProtocolIsToldOfAFailure) {
  const PrefillRequest r = request(1, 10);
  reserve(r);
  settle();
  service_->submit(r, kSink, true, kNow);
  source_->remove_peer(kSink, kNow);
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_TRUE(host_.frames[0].failed().retryable());
  EXPECT_TRUE(service_->idle());
}

// And how many decode, or are to, whose place it cannot know.
TEST_F(ServiceTest, SequencesOfOthersAreThoseThatStayHere) {
  PrefillRequest here = request(1, 8), handed_off = request(2, 8), of_another = request(3, 8);
  here.request.sampling.num_choices = 2;
  of_another.request.key.router = RouterId{2};
  service_->submit(here, WorkerId(), true, kNow);
  service_->submit(handed_off, kSink, true, kNow);
  service_->submit(of_another, WorkerId(), true, kNow);
  EXPECT_EQ(service_->sequences_of_others(RouterId{1}), 1u);
  EXPECT_EQ(service_->sequences_of_others(RouterId{2}), 2u);
  service_->cancel(here.request.key, kNow);
  EXPECT_EQ(service_->sequences_of_others(RouterId{3}), 1u);
}

}  // namespace
}  // namespace baton::prefill
