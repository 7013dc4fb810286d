#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "kvtransfer/source.h"
#include "tests/kvtransfer/actions.h"

// A source with a hand-off of three blocks, for the tests of its states and of its announces.
namespace baton::kvtransfer::source_fixture {

inline constexpr WorkerId kSink{7}, kOther{8};
inline constexpr uint32_t kLayers = 3, kTokens = 40;  // two whole blocks of 16 and one of 8
inline constexpr uint64_t kHash = 1234;

inline HandoffKey key(uint64_t request = 1, uint64_t generation = 1) {
  return {RouterId{9}, RequestId{request}, Generation{generation}};
}

class SourceTest : public ::testing::Test {
 protected:
  static SourceConfig config() {
    SourceConfig c;
    c.layout = kvcache::KvLayout::full_kv(kLayers, 1, 4, DType::kBF16, 16);
    c.max_handoffs = 4;
    c.max_early_credits = 2;
    return c;
  }

  status begin(HandoffKey k = key(), double t = 0, double deadline = 100) {
    return source_.begin({k, kSink, kTokens, kHash, at(deadline)}, at(t), actions_);
  }
  // Layers [l0, l1) of blocks [b0, b1); digest = layer * 100 + block, block ids = block + 10.
  status done(uint32_t l0, uint32_t l1, uint32_t b0, uint32_t b1, HandoffKey k = key(),
              double t = 0) {
    std::vector<BlockId> blocks;
    std::vector<uint64_t> digests;
    for (uint32_t b = b0; b < b1; ++b) blocks.emplace_back(b + 10);
    for (uint32_t l = l0; l < l1; ++l)
      for (uint32_t b = b0; b < b1; ++b) digests.push_back(l * 100 + b);
    return source_.layers_done(k, {l0, l1, b0, blocks, digests}, at(t), actions_);
  }
  status finish(HandoffKey k = key(), double t = 0) {
    const TokenId tokens[] = {5, 6};
    return source_.finished(k, tokens, at(t), actions_);
  }
  void credit(HandoffKey k = key(), double t = 0, uint32_t first_token = 0) {
    source_.on_credit(kSink, {k, seconds(5), first_token, kTokens, kHash}, at(t), actions_);
  }
  void compute_all(HandoffKey k = key()) { ASSERT_TRUE(done(0, kLayers, 0, 3, k)); }
  // To the state of this name, with nothing left in actions_.
  void to_streaming() {
    ASSERT_TRUE(begin());
    credit();
    actions_.clear();
  }
  void to_committed() {
    to_streaming();
    compute_all();
    ASSERT_TRUE(finish());
    actions_.clear();
  }
  void to_parked() {
    ASSERT_TRUE(begin());
    compute_all();
    ASSERT_TRUE(finish());
    actions_.clear();
  }
  void expect_empty() {
    EXPECT_EQ(source_.num_handoffs(), 0u);
    EXPECT_EQ(source_.parked_blocks(), 0u);
    EXPECT_EQ(source_.waiting_blocks(), 0u);
  }
  template <class T>
  std::vector<T> took() const {
    return all<T>(actions_);
  }
  template <class T>
  std::vector<T> told(WorkerId to = kSink) const {
    return sent<T>(actions_, to);
  }

  Source source_{config()};
  SourceActions actions_;
};

}  // namespace baton::kvtransfer::source_fixture
