#include "kvtransfer/handoff_driver.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <array>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "kvtransfer/loopback_transport.h"
#include "kvtransfer/range_digest.h"
#include "tests/fakes/mute_transport.h"
#include "tests/kvtransfer/actions.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kTokens = 100, kBlocks = 32;
constexpr uint64_t kHash = 5, kSeed = 77;

kvcache::KvLayout layout(uint32_t block_tokens = 16) {
  return kvcache::KvLayout::full_kv(3, 2, 16, DType::kBF16, block_tokens);
}
HandoffConfig config(uint64_t worker, uint32_t block_tokens = 16) {
  HandoffConfig c{.worker = WorkerId{worker}, .layout = layout(block_tokens)};
  c.model_key = c.numerics = "m";
  c.num_blocks = kBlocks * 16 / block_tokens;
  return c;
}
HandoffKey key(uint64_t request) { return {RouterId{1}, RequestId{request}, Generation{1}}; }

// One worker on the hub, and what its service heard.
struct Worker final : HandoffListener {
  Worker(LoopbackHub& hub, uint64_t id, uint32_t block_tokens = 16,
         const std::function<void(HandoffConfig&)>& change = {}) {
    HandoffConfig c = config(id, block_tokens);
    if (change) change(c);
    driver = *HandoffDriver::create(c, hub.make_transport("h"), *this, &metrics);
  }

  std::vector<BlockId> blocks(uint32_t first_token, uint32_t tokens) const {
    std::vector<BlockId> ids;
    const uint32_t n = driver->hello().layout.blocks_for(tokens - first_token);
    for (uint32_t i = n; i > 0; --i) ids.emplace_back(ascending ? n - i : i);
    return ids;
  }
  // The whole prompt at once: begun, computed, finished.
  void hand_over(const HandoffKey& k, WorkerId sink, TimePoint now) {
    const std::vector<uint64_t> digests = write_prompt();
    const TokenId first = 9;
    ASSERT_TRUE(driver->begin({k, sink, kTokens, kHash, now + seconds(10)}, now));
    ASSERT_TRUE(
        driver->layers_done(k, {0, layout().num_layers(), 0, blocks(0, kTokens), digests}, now));
    ASSERT_TRUE(driver->finished(k, {&first, 1}, now));
  }
  // Layer by layer, with `after_layer` in between.
  void compute(const HandoffKey& k, WorkerId sink, TimePoint now,
               const std::function<void()>& after_layer) {
    const std::vector<uint64_t> digests = write_prompt();
    const std::vector<BlockId> ids = blocks(0, kTokens);
    const TokenId first = 9;
    ASSERT_TRUE(driver->begin({k, sink, kTokens, kHash, now + seconds(10)}, now));
    for (uint32_t layer = 0; layer < layout().num_layers(); ++layer) {
      const auto row = std::span(digests).subspan(layer * ids.size(), ids.size());
      ASSERT_TRUE(driver->layers_done(k, {layer, layer + 1, 0, ids, row}, now));
      after_layer();
    }
    ASSERT_TRUE(driver->finished(k, {&first, 1}, now));
  }
  // Returns the digests, [num_layers, num_blocks].
  std::vector<uint64_t> write_prompt() {
    const kvcache::KvLayout& l = driver->hello().layout;
    const std::vector<BlockId> ids = blocks(0, kTokens);
    std::vector<uint64_t> digests;
    for (uint32_t layer = 0; layer < l.num_layers(); ++layer) {
      for (uint32_t b = 0; b < ids.size(); ++b) {
        const KvRange cell{layer, layer + 1, b * l.block_tokens,
                           std::min((b + 1) * l.block_tokens, kTokens)};
        write_kv(l, driver->cache().data(), {ids, 0}, cell, kSeed);
        digests.push_back(digest_range(l, driver->cache().data(), {ids, 0}, cell));
      }
    }
    return digests;
  }
  status reserve(const HandoffKey& k, WorkerId source, TimePoint now, uint32_t first_token = 0) {
    return driver->reserve(
        {k, source, blocks(first_token, kTokens), first_token, kTokens, kHash, now + seconds(10)},
        now);
  }
  size_t wrong(uint32_t first_token = 0) const {
    const kvcache::KvLayout& l = driver->hello().layout;
    const std::vector<BlockId> ids = blocks(first_token, kTokens);
    return wrong_vectors(l, driver->cache().data(), {ids, first_token},
                         {0, l.num_layers(), first_token, kTokens}, kSeed);
  }

  void joined(const Joined& j, TimePoint) override {
    joins.push_back(j);
    if (on_joined) on_joined();
  }
  void sink_failed(const HandoffKey&, const Error& e) override { sink_failures.push_back(e); }
  void sink_released(const HandoffKey&, std::span<const BlockId>) override { ++sink_releases; }
  void source_released(const SourceReleased&) override { ++source_releases; }
  void source_failed(const SourceFailed& f) override { source_failures.push_back(f); }
  void source_refused(const HandoffKey&, Duration d) override { refusals.push_back(d); }
  void source_sink_lost(const HandoffKey&, const Error&, TimePoint) override { ++sinks_lost; }
  void peer_up(WorkerId w, std::string_view) override { up.push_back(w); }
  void peer_lost(WorkerId w, const Error& e) override {
    lost.push_back(w);
    lost_why = e.message;
  }

  bool ascending = false;  // blocks() in this order: neighbours, and one run
  Metrics metrics;
  std::vector<Joined> joins;
  std::vector<Error> sink_failures;
  std::vector<SourceFailed> source_failures;
  std::vector<Duration> refusals;
  std::vector<WorkerId> up, lost;
  std::string lost_why;
  int sink_releases = 0, source_releases = 0, sinks_lost = 0;
  std::function<void()> on_joined;
  std::unique_ptr<HandoffDriver> driver;
};

class HandoffDriverTest : public ::testing::Test {
 protected:
  HandoffDriverTest() { spdlog::set_level(spdlog::level::off); }
  ~HandoffDriverTest() override { spdlog::set_level(spdlog::level::info); }

  void pair(Worker& a, Worker& b) {
    ASSERT_TRUE(a.driver->add_peer(b.driver->hello(), now_));
    ASSERT_TRUE(b.driver->add_peer(a.driver->hello(), now_));
    settle({&a, &b});
  }
  // Polls until nobody has anything left to do at this time.
  void settle(std::initializer_list<Worker*> workers) {
    hub_->advance(now_);
    for (int quiet = 0; quiet < 3;) {
      bool more = false;
      for (Worker* w : workers) more |= w->driver->poll(now_) || !*w->driver->arm();
      quiet = more ? 0 : quiet + 1;
    }
  }
  // By sender and kind, of all that both have sent.
  std::map<std::string, int> messages_sent() {
    std::map<std::string, int> sent;
    for (const auto& [name, worker] : {std::pair("source", &source_), std::pair("sink", &sink_)}) {
      std::istringstream lines(worker->metrics.serialize());
      const std::string series = "baton_kv_messages_sent_total{kind=\"";
      for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(series)) continue;
        const size_t end = line.find('"', series.size());
        sent[fmt::format("{} {}", name, line.substr(series.size(), end - series.size()))] =
            std::stoi(line.substr(line.find(' ')));
      }
    }
    return sent;
  }
  void pass(Duration d, std::initializer_list<Worker*> workers) {
    const TimePoint end = now_ + d;
    while (now_ < end) {
      now_ = std::min(end, now_ + milliseconds(100));
      settle(workers);
    }
  }

  TimePoint now_ = at(0);
  std::unique_ptr<LoopbackHub> hub_ = make_loopback_hub();
  Worker source_{*hub_, 1}, sink_{*hub_, 2};
};

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
  EXPECT_THAT(sink_.metrics.serialize(), HasSubstr("baton_kv_digest_mismatches_total 2"));
}

TEST_F(HandoffDriverTest, UnequalBlockSizesHandOver) {
  for (const uint32_t block_tokens : {4u, 64u}) {
    Worker other(*hub_, 100 + block_tokens, block_tokens);
    pair(source_, other);
    EXPECT_EQ(other.driver->granule_tokens(WorkerId{1}), std::max(16u, block_tokens));
    ASSERT_TRUE(other.reserve(key(block_tokens), WorkerId{1}, now_, 64));
    source_.hand_over(key(block_tokens), WorkerId{100 + block_tokens}, now_);
    settle({&source_, &other});
    ASSERT_EQ(other.joins.size(), 1u);
    EXPECT_EQ(other.wrong(64), 0u);
  }
}

// Prefill of two ranks to decode of one, and back, and two to two; mapped and not.
TEST_F(HandoffDriverTest, TensorParallelDegreesHandOver) {
  const auto split = [](HandoffConfig& c) { c.layout.shard_heads = {1, 1}; };
  const auto whole = [](HandoffConfig&) {};
  uint64_t id = 100;
  for (const bool mapped : {false, true}) {
    hub_->set_faults({.mapped = mapped});
    for (const auto& [from, to] : std::vector<std::array<std::function<void(HandoffConfig&)>, 2>>{
             {split, whole}, {whole, split}, {split, split}}) {
      Worker prefill(*hub_, id, 16, from), decode(*hub_, id + 1, 16, to);
      pair(prefill, decode);
      ASSERT_TRUE(decode.reserve(key(id), WorkerId{id}, now_));
      prefill.compute(key(id), WorkerId{id + 1}, now_, [&] { settle({&prefill, &decode}); });
      settle({&prefill, &decode});
      ASSERT_EQ(decode.joins.size(), 1u) << "mapped " << mapped << ", worker " << id;
      EXPECT_EQ(decode.wrong(), 0u);
      EXPECT_EQ(prefill.source_releases, 1);
      id += 2;
    }
  }
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
  ASSERT_TRUE(stranger->allocate(kBlocks * layout().block_bytes()));
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
        "baton_kv_exposed_transfer_seconds_count 1", "baton_kv_handoffs{role=\"sink\"} 0"}) {
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
