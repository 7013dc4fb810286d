#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "kvtransfer/handoff_driver.h"
#include "kvtransfer/loopback_transport.h"
#include "kvtransfer/range_digest.h"
#include "tests/kvtransfer/actions.h"
#include "tests/kvtransfer/kv_pattern.h"

// Whole drivers on the loopback hub.
namespace baton::kvtransfer {

inline constexpr uint32_t kTokens = 100, kBlocks = 32;
inline constexpr uint64_t kHash = 5, kSeed = 77;

inline kvcache::KvLayout layout(uint32_t block_tokens = 16) {
  return kvcache::KvLayout::full_kv(3, 2, 16, DType::kBF16, block_tokens);
}
inline HandoffConfig config(uint64_t worker, uint32_t block_tokens = 16) {
  HandoffConfig c{.worker = WorkerId{worker}, .layout = layout(block_tokens)};
  c.model_key = c.numerics = "m";
  c.num_blocks = kBlocks * 16 / block_tokens;
  return c;
}
inline HandoffKey key(uint64_t request) { return {RouterId{1}, RequestId{request}, Generation{1}}; }

// One worker on the hub, and what its service heard.
struct Worker final : HandoffListener {
  Worker(LoopbackHub& hub, uint64_t id, uint32_t block_tokens = 16,
         const std::function<void(HandoffConfig&)>& change = {}) {
    HandoffConfig c = config(id, block_tokens);
    if (change) change(c);
    driver = *HandoffDriver::create(c, hub.make_transport("h"), *this, &metrics);
    cache = driver->cache();
  }
  // Its cache is in a GPU's memory.
  Worker(LoopbackHub& hub, uint64_t id, std::unique_ptr<DeviceReads> gpu,
         std::span<std::byte> gpu_memory, const std::function<void(HandoffConfig&)>& change = {},
         const std::string& host = "h")
      : cache(gpu_memory) {
    HandoffConfig c = config(id);
    if (change) change(c);
    driver = *HandoffDriver::create(c, hub.make_transport(host), *this, &metrics, std::move(gpu));
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
        write_kv(l, cache.data(), {ids, 0}, cell, kSeed);
        digests.push_back(digest_range(l, cache.data(), {ids, 0}, cell));
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
    return wrong_vectors(l, cache.data(), {ids, first_token},
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
  std::span<std::byte> cache;
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

}  // namespace baton::kvtransfer
