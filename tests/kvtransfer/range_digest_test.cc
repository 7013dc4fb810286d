#include "kvtransfer/range_digest.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/kvcache/digest.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {
namespace {

using kvcache::KvLayout;

const std::vector<BlockId> kBlocks = {BlockId{5}, BlockId{2}, BlockId{3}, BlockId{0}, BlockId{1}};

// A sequence of 64 tokens from position `first` on, in blocks of `block_tokens`.
std::vector<std::byte> sequence(const KvLayout& l, uint32_t first) {
  std::vector<std::byte> cache(6 * l.block_bytes());
  write_kv(l, cache.data(), {kBlocks, first}, {0, l.num_layers(), first, first + 64}, 9);
  return cache;
}

TEST(RangeDigest, IsTheSumOfItsBlocks) {
  const KvLayout l = KvLayout::full_kv(3, 2, 8, DType::kBF16, 16);
  const std::vector<std::byte> cache = sequence(l, 32);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t tokens = i == 3 ? 5 : 16;
    sum += kvcache::digest_layer(l, cache.data() + l.offset(kBlocks[i], 0), 1, 32 + 16 * i, tokens);
  }
  EXPECT_EQ(digest_range(l, cache.data(), {kBlocks, 32}, {1, 2, 32, 32 + 48 + 5}), sum);
}

TEST(RangeDigest, DoesNotDependOnTheBlockSize) {
  const KvLayout a = KvLayout::full_kv(3, 2, 8, DType::kBF16, 16);
  const KvLayout b = KvLayout::full_kv(3, 2, 8, DType::kBF16, 32);
  const std::vector<std::byte> in_a = sequence(a, 32), in_b = sequence(b, 32);
  for (const KvRange range :
       {KvRange{0, 3, 32, 96}, KvRange{0, 1, 48, 64}, KvRange{1, 3, 37, 83}}) {
    EXPECT_EQ(digest_range(a, in_a.data(), {kBlocks, 32}, range),
              digest_range(b, in_b.data(), {kBlocks, 32}, range));
  }
}

TEST(RangeDigest, DoesNotDependOnTheShards) {
  const KvLayout a = KvLayout::full_kv(3, 4, 64, DType::kBF16, 16);
  const std::vector<std::byte> in_a = sequence(a, 32);
  for (const std::vector<uint32_t>& shards :
       {std::vector<uint32_t>{4}, {2, 2}, {1, 1, 1, 1}, {3, 1}}) {
    KvLayout b = a;
    b.shard_heads = shards;
    const std::vector<std::byte> in_b = sequence(b, 32);
    for (const KvRange range : {KvRange{0, 3, 32, 96}, KvRange{1, 2, 37, 83}}) {
      EXPECT_EQ(digest_range(a, in_a.data(), {kBlocks, 32}, range),
                digest_range(b, in_b.data(), {kBlocks, 32}, range));
    }
    EXPECT_EQ(kvcache::digest_layer(a, in_a.data() + a.offset(kBlocks[1], 0), 2, 48, 9),
              kvcache::digest_layer(b, in_b.data() + b.offset(kBlocks[1], 0), 2, 48, 9));
  }
}

TEST(RangeDigest, RangesSideBySideAddUp) {
  const KvLayout l = KvLayout::full_kv(3, 2, 8, DType::kBF16, 16);
  const std::vector<std::byte> cache = sequence(l, 0);
  const auto digest = [&](const KvRange& r) {
    return digest_range(l, cache.data(), {kBlocks, 0}, r);
  };
  EXPECT_EQ(digest({0, 3, 0, 64}),
            digest({0, 3, 0, 23}) + digest({0, 1, 23, 64}) + digest({1, 3, 23, 64}));
}

TEST(RangeDigest, AnyChangedByteAndAnyWrongPlaceShow) {
  const KvLayout l = KvLayout::full_kv(2, 2, 8, DType::kBF16, 16);
  std::vector<std::byte> cache = sequence(l, 0);
  const KvRange all{0, 2, 0, 64};
  const uint64_t right = digest_range(l, cache.data(), {kBlocks, 0}, all);
  for (size_t i = 0; i < 4 * l.block_bytes(); i += 7) {
    std::byte& byte = cache[l.offset(kBlocks[i / l.block_bytes()], 0) + i % l.block_bytes()];
    byte ^= std::byte{1};
    EXPECT_NE(digest_range(l, cache.data(), {kBlocks, 0}, all), right);
    byte ^= std::byte{1};
  }
  const std::vector<BlockId> swapped = {BlockId{2}, BlockId{5}, BlockId{3}, BlockId{0}};
  EXPECT_NE(digest_range(l, cache.data(), {swapped, 0}, all), right);
}

}  // namespace
}  // namespace baton::kvtransfer
