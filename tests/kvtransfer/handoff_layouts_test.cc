#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "tests/kvtransfer/handoff_fixture.h"

// Hand-offs between caches that do not lie alike.
namespace baton::kvtransfer {
namespace {

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

}  // namespace
}  // namespace baton::kvtransfer
