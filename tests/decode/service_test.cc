#include "decode/service.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <numeric>

#include "kvtransfer/loopback_transport.h"
#include "tests/fakes/fake_service_host.h"
#include "tests/fakes/mute_transport.h"

namespace baton::decode {
namespace {

constexpr uint32_t kBlock = 4, kPoolBlocks = 16, kSlots = 6, kVocabulary = 50;
constexpr WorkerId kSource{1}, kSink{2};
const TimePoint kNow{seconds(100)};

kvtransfer::HandoffConfig handoff_config(WorkerId worker) {
  kvtransfer::HandoffConfig c;
  c.worker = worker;
  c.model_key = "m";
  c.numerics = "n";
  c.layout = kvcache::KvLayout::full_kv(2, 1, 16, DType::kBF16, kBlock);
  c.num_blocks = kPoolBlocks;
  return c;
}

size_t bytes_allocated() {
  const auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// A decode service, its hand-off, and a prefill worker's hand-off.
class ServiceTest : public testing::Test, private fakes::DeafListener {
 protected:
  ServiceTest() {
    source_ = *kvtransfer::HandoffDriver::create(handoff_config(kSource), hub_->make_transport("h"),
                                                 deaf_, nullptr);
    sink_ = *kvtransfer::HandoffDriver::create(
        handoff_config(kSink),
        std::make_unique<fakes::MuteTransport>(hub_->make_transport("h"), mute_), *this, nullptr);
    SchedulerConfig config;
    config.limits = {.max_rows = 64, .max_sequences = 8, .max_slots = kSlots, .max_context = 1000};
    config.vocab_size = kVocabulary;
    service_.emplace(config, Resources{pool_, hasher_, slots_}, *sink_, host_, metrics_);
    EXPECT_TRUE(source_->add_peer(sink_->hello(), kNow));
    EXPECT_TRUE(sink_->add_peer(source_->hello(), kNow));
    for (int i = 0; i < 10; ++i) source_->poll(kNow), sink_->poll(kNow);
  }

  static engine::Request request(uint64_t id) {
    engine::Request r;
    r.key = {RouterId{1}, RequestId{id}, Generation{1}};
    r.tokens.resize(10);
    std::iota(r.tokens.begin(), r.tokens.end(), 1);
    r.prompt_tokens = 10;
    r.sampling.max_tokens = 10;
    r.deadline = kNow + seconds(60);
    return r;
  }
  void expect_nothing_held() {
    EXPECT_TRUE(service_->idle());
    EXPECT_EQ(service_->snapshot().reserved + service_->snapshot().running, 0u);
    EXPECT_EQ(pool_.counts().active + pool_.counts().quarantined, 0u);
    EXPECT_EQ(slots_.available(), slots_.size());
  }

  void sink_failed(const RequestKey& key, const Error& why) override {
    service_->sink_failed(key, why);
  }
  void sink_released(const RequestKey&, std::span<const BlockId> blocks) override {
    service_->sink_released(blocks);
  }

  // One step: planned, computed in `took`, done.
  std::vector<proto::Frame> step(TimePoint done, Duration took) {
    host_.frames.clear();
    engine::StepBatch batch;
    engine::StepBudget budget{.rows = 64, .sequences = 64};
    service_->plan(budget, batch, done - took);
    for (engine::StepSample& sample : batch.samples) sample.result.token = 3;
    batch.duration = took;
    service_->on_done(batch, done);
    return host_.frames;
  }

  bool mute_ = false;
  std::unique_ptr<kvtransfer::LoopbackHub> hub_ = kvtransfer::make_loopback_hub();
  fakes::DeafListener deaf_;
  std::unique_ptr<kvtransfer::HandoffDriver> source_, sink_;
  fakes::FakeServiceHost host_;
  Metrics metrics_;
  kvcache::BlockPool pool_{kPoolBlocks};
  kvcache::PrefixHasher hasher_{{"w", "", "t"}, kBlock};
  engine::SlotAllocator slots_{kSlots};
  std::optional<Service> service_;
};

TEST_F(ServiceTest, ReservationThatFailsAtOnceIsNotGranted) {
  mute_ = true;
  service_->reserve(request(1), kSource, false, kNow);
  ASSERT_EQ(host_.frames.size(), 1u);
  EXPECT_TRUE(host_.frames[0].failed().retryable());
  sink_->poll(kNow);
  expect_nothing_held();
}

TEST_F(ServiceTest, FirstTokenOutsideTheVocabularyEndsTheRequest) {
  service_->reserve(request(1), kSource, false, kNow);
  ASSERT_TRUE(host_.frames.at(0).reserve_reply().granted());
  host_.frames.clear();
  service_->joined({.key = request(1).key, .first_tokens = {kVocabulary}}, kNow);
  ASSERT_EQ(host_.frames.size(), 2u);  // the hand-off, and its end
  EXPECT_TRUE(host_.frames[1].failed().retryable());
  expect_nothing_held();
}

TEST_F(ServiceTest, AChoiceCancelledWhileItsKvIsAwaitedIsNotDecoded) {
  engine::Request r = request(1);
  r.sampling.num_choices = 2;
  service_->reserve(r, kSource, false, kNow);
  ASSERT_TRUE(host_.frames.at(0).reserve_reply().granted());
  service_->cancel_choice(r.key, 1);
  EXPECT_EQ(service_->snapshot().reserved, 1u);
  service_->joined({.key = r.key, .first_tokens = {7, 8}}, kNow);
  EXPECT_EQ(service_->snapshot().running, 1u);
  service_->cancel_choice(r.key, 0);
  expect_nothing_held();
}

// Whatever a router repeats or makes up, there are only as many to keep as it has choices.
TEST_F(ServiceTest, CancelsOfARouterAreKeptOnceAndOnlyOfChoicesThatThereAre) {
  engine::Request r = request(1);
  r.sampling.first_choice = 5;
  r.sampling.num_choices = 3;
  service_->reserve(r, kSource, false, kNow);
  ASSERT_TRUE(host_.frames.at(0).reserve_reply().granted());
  const size_t before = bytes_allocated();
  for (uint32_t i = 0; i < 100'000; ++i) service_->cancel_choice(r.key, i % 2 == 0 ? 6 : i + 100);
  service_->cancel_choice(r.key, 7);
  EXPECT_LT(bytes_allocated(), before + 1000);
  service_->joined({.key = r.key, .first_tokens = {7, 8, 9}}, kNow);
  EXPECT_EQ(service_->snapshot().running, 1u) << "6 and 7 are cancelled";
  service_->cancel(r.key, kNow);
  expect_nothing_held();
}

TEST_F(ServiceTest, BlocksThatComeBackAreToldOf) {
  service_->reserve(request(1), kSource, false, kNow);
  host_.works_added = 0;
  service_->cancel(request(1).key, kNow);
  expect_nothing_held();
  EXPECT_GT(host_.works_added, 0) << "a prompt of this worker may have waited for them";
}

TEST_F(ServiceTest, TheFirstTokenAfterAHandOverSaysWhatDecodeTook) {
  engine::Request r = request(1);
  r.sampling.num_choices = 2;
  service_->reserve(r, kSource, false, kNow);
  service_->joined({.key = r.key, .first_tokens = {7, 8}}, kNow);
  const auto first = step(kNow + milliseconds(30), milliseconds(12));
  ASSERT_EQ(first.size(), 2u);  // the hand-off's figures, and the tokens
  const proto::Tokens& tokens = first[1].tokens();
  EXPECT_EQ(tokens.tokens_size(), 2);
  ASSERT_EQ(tokens.first_steps_size(), 1) << "once for all choices";
  EXPECT_EQ(tokens.first_steps(0).request(), 1u);
  EXPECT_EQ(tokens.first_steps(0).generation(), 1u);
  EXPECT_EQ(tokens.first_steps(0).queue_us(), 18'000u);
  EXPECT_EQ(tokens.first_steps(0).step_us(), 12'000u);
  const auto second = step(kNow + milliseconds(40), milliseconds(10));
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].tokens().first_steps_size(), 0);
  service_->cancel(r.key, kNow);
  expect_nothing_held();
}

// A step that began before the KV was here has not been waited for longer than it was.
TEST_F(ServiceTest, AFirstStepIsNoLongerThanTheKvWasHere) {
  service_->reserve(request(1), kSource, false, kNow);
  service_->joined({.key = request(1).key, .first_tokens = {7}}, kNow);
  const auto frames = step(kNow + milliseconds(3), milliseconds(12));
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[1].tokens().first_steps(0).queue_us(), 0u);
  EXPECT_EQ(frames[1].tokens().first_steps(0).step_us(), 3000u);
  service_->cancel(request(1).key, kNow);
}

// Awaited or decoding, each choice until it ends.
TEST_F(ServiceTest, CountsTheSequencesOfOtherRouters) {
  const auto others_of = [&](uint64_t router) {
    return service_->sequences_of_others(RouterId{router});
  };
  engine::Request r = request(1);
  r.sampling.num_choices = 2;
  service_->reserve(r, kSource, false, kNow);
  EXPECT_EQ(others_of(1), 0u);
  EXPECT_EQ(others_of(2), 2u);
  service_->joined({.key = r.key, .first_tokens = {7, 8}}, kNow);
  step(kNow + milliseconds(12), milliseconds(12));
  EXPECT_EQ(others_of(2), 2u);
  service_->cancel(r.key, kNow);
  EXPECT_EQ(others_of(2), 0u);
}

}  // namespace
}  // namespace baton::decode
