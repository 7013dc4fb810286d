#include "kvtransfer/copy_digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kvtransfer/range_digest.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {
namespace {

std::vector<BlockId> shuffled(uint32_t n, uint32_t seed) {
  std::vector<BlockId> ids;
  for (uint32_t i = 0; i < n; ++i) ids.emplace_back(i);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
  return ids;
}

// What arrives is what was there, and its digest is the one that both sides compute apart.
TEST(CopyDigest, CopiesAndAgreesWithTheDigest) {
  std::mt19937 random(1);
  for (const uint32_t head_dim : {1u, 4u, 32u, 64u, 80u, 128u, 192u}) {
    auto l = kvcache::KvLayout::full_kv(4, 3, head_dim, DType::kBF16, 16);
    if (head_dim % 3 == 2) l.shard_heads = {1, 2};
    const std::vector<BlockId> from = shuffled(8, 1), to = shuffled(8, 2);
    std::vector<std::byte> source(8 * l.block_bytes()), sink(8 * l.block_bytes());
    write_kv(l, source.data(), {from, 64}, {0, 4, 64, 192}, 7);
    for (int round = 0; round < 40; ++round) {
      std::fill(sink.begin(), sink.end(), std::byte{0});
      const uint32_t begin = 64 + 16 * (random() % 8), layer = random() % 4;
      const KvRange range{layer, layer + 1 + static_cast<uint32_t>(random() % (4 - layer)), begin,
                          begin + 1 + static_cast<uint32_t>(random() % (192 - begin))};
      const uint64_t digest =
          copy_digest(l, source.data(), {from, 64}, sink.data(), {to, 64}, range);
      EXPECT_EQ(digest, digest_range(l, source.data(), {from, 64}, range));
      EXPECT_EQ(digest, digest_range(l, sink.data(), {to, 64}, range));
      EXPECT_EQ(wrong_vectors(l, sink.data(), {to, 64}, range, 7), 0u);
    }
  }
}

TEST(CopyDigest, DamageShows) {
  const auto l = kvcache::KvLayout::full_kv(2, 2, 64, DType::kBF16, 16);
  const std::vector<BlockId> ids = shuffled(2, 1);
  std::vector<std::byte> source(2 * l.block_bytes()), sink(2 * l.block_bytes());
  write_kv(l, source.data(), {ids, 0}, {0, 2, 0, 32}, 7);
  const KvRange all{0, 2, 0, 32};
  const uint64_t right = digest_range(l, source.data(), {ids, 0}, all);
  for (size_t i = 0; i < source.size(); i += 13) {
    source[i] ^= std::byte{4};
    EXPECT_NE(copy_digest(l, source.data(), {ids, 0}, sink.data(), {ids, 0}, all), right);
    source[i] ^= std::byte{4};
  }
}

}  // namespace
}  // namespace baton::kvtransfer
