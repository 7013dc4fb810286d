#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kvtransfer/sink.h"
#include "tests/kvtransfer/actions.h"

// A sink and one source, and what the sink was told and did.
namespace baton::kvtransfer {

class SinkTest : public ::testing::Test {
 protected:
  static constexpr WorkerId kSource{3}, kOther{4};
  static constexpr uint32_t kLayers = 3, kTokens = 40;  // two whole blocks of 16 and one of 8
  static constexpr uint64_t kHash = 1234;

  static HandoffKey key(uint64_t request = 1, uint64_t generation = 1) {
    return {RouterId{9}, RequestId{request}, Generation{generation}};
  }
  static SinkConfig config() {
    SinkConfig c;
    c.layout = kvcache::KvLayout::full_kv(kLayers, 1, 4, DType::kBF16, 16);
    c.num_blocks = 64;
    c.max_handoffs = 4;
    c.read_bytes = 2 * c.layout.layer_bytes();  // two cells a read
    c.window_bytes = 8 * c.layout.layer_bytes();
    c.window_reads = 3;
    return c;
  }
  SinkTest() { sink_.add_source(kSource, config().layout, 100); }

  status reserve(HandoffKey k = key(), double t = 0, uint32_t first_token = 0,
                 double deadline = 100) {
    SinkReserve r{k, kSource, {}, first_token, kTokens, kHash, at(deadline)};
    const auto base = static_cast<uint32_t>(k.request.value * 10 + k.generation.value * 3 - 3);
    for (uint32_t b = first_token / 16; b < 3; ++b) r.blocks.emplace_back(base + b);
    return sink_.reserve(std::move(r), at(t), actions_);
  }
  // Layers [l0, l1) of blocks [b0, b1); digest = layer * 100 + block.
  static Announce announcement(uint32_t l0, uint32_t l1, uint32_t b0, uint32_t b1,
                               HandoffKey k = key()) {
    Announce a{k, l0, l1, b0, std::min(b1 * 16, kTokens), {RankPart{}}};
    for (uint32_t b = b0; b < b1; ++b) a.parts[0].blocks.emplace_back(b + 70);
    for (uint32_t l = l0; l < l1; ++l)
      for (uint32_t b = b0; b < b1; ++b) a.parts[0].digests.push_back(l * 100 + b);
    return a;
  }
  void announce(uint32_t l0, uint32_t l1, uint32_t b0, uint32_t b1, HandoffKey k = key(),
                double t = 0) {
    sink_.on_announce(kSource, announcement(l0, l1, b0, b1, k), at(t), actions_);
  }
  void commit(HandoffKey k = key(), double t = 0) {
    sink_.on_commit(kSource, {k, kHash, kTokens, {5}}, at(t), actions_);
  }
  // Answers every StartRead since the last call, with the right digests.
  void read_all(double t = 0) {
    for (; answered_ < actions_.size(); ++answered_) {
      if (const auto* read = std::get_if<StartRead>(&actions_[answered_])) {
        const uint64_t cookie = read->cookie, digest = read->announced_digest;
        sink_.read_done(cookie, digest, at(t), actions_);
      }
    }
  }
  void clear() {
    actions_.clear();
    answered_ = 0;
  }
  template <class T>
  std::vector<T> took() const {
    return all<T>(actions_);
  }
  template <class T>
  std::vector<T> told(WorkerId to = kSource) const {
    return sent<T>(actions_, to);
  }
  void expect_empty() {
    EXPECT_EQ(sink_.num_handoffs(), 0u);
    EXPECT_EQ(sink_.held_blocks(), 0u);
    EXPECT_EQ(sink_.reads_in_flight(), 0u);
  }

  Sink sink_{config()};
  SinkActions actions_;
  size_t answered_ = 0;
};

}  // namespace baton::kvtransfer
