#include "common/kvcache/digest.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "common/kvcache/digest_table.h"

namespace baton::kvcache {
namespace {

std::vector<std::byte> random_bytes(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = std::byte(random());
  return bytes;
}

// The same vectors, cut into heads [begin, begin + count) and other block sizes.
std::vector<std::byte> reslice(const KvLayout& from, const std::vector<std::byte>& blocks,
                               const KvLayout& to, uint32_t tokens) {
  std::vector<std::byte> out(to.blocks_for(tokens) * to.block_bytes());
  for (uint32_t layer = 0; layer < from.num_layers(); ++layer) {
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint32_t head = 0; head < to.num_heads(); ++head) {
        for (uint32_t t = 0; t < tokens; ++t) {
          std::memcpy(
              &out[to.offset(BlockId{t / to.block_tokens}, layer, plane, head,
                             t % to.block_tokens)],
              &blocks[from.offset(BlockId{t / from.block_tokens}, layer, plane,
                                  head + to.head_begin - from.head_begin, t % from.block_tokens)],
              from.vector_bytes());
        }
      }
    }
  }
  return out;
}

uint64_t digest_all(const KvLayout& layout, const std::vector<std::byte>& blocks, uint32_t tokens) {
  uint64_t sum = 0;
  for (uint32_t first = 0; first < tokens; first += layout.block_tokens) {
    const std::byte* block = &blocks[first / layout.block_tokens * layout.block_bytes()];
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      sum +=
          digest_layer(layout, block, layer, first, std::min(layout.block_tokens, tokens - first));
    }
  }
  return sum;
}

TEST(Digest, AnyResliceSumsToTheSame) {
  const KvLayout whole = KvLayout::full_kv(3, 4, 32, DType::kBF16, 16);
  const uint32_t tokens = 41;
  const auto bytes = random_bytes(whole.blocks_for(tokens) * whole.block_bytes(), 1);
  uint64_t sum = 0;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    KvLayout half = KvLayout::full_kv(3, 2, 32, DType::kBF16, 8);
    half.head_begin = 2 * rank;
    half.total_heads = 4;
    sum += digest_all(half, reslice(whole, bytes, half, tokens), tokens);
  }
  EXPECT_EQ(sum, digest_all(whole, bytes, tokens));
}

TEST(Digest, EveryBitCounts) {
  const KvLayout layout = KvLayout::full_kv(1, 2, 16, DType::kBF16, 4);
  auto bytes = random_bytes(layout.block_bytes(), 2);
  const uint64_t before = digest_layer(layout, bytes.data(), 0, 0, 4);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
    ASSERT_NE(digest_layer(layout, bytes.data(), 0, 0, 4), before) << bit;
    bytes[bit / 8] ^= std::byte(1 << bit % 8);
  }
}

TEST(Digest, PlaceCounts) {
  const KvLayout layout = KvLayout::full_kv(2, 2, 16, DType::kBF16, 4);
  auto bytes = random_bytes(layout.block_bytes(), 3);
  // Equal bytes in both layers.
  std::memcpy(&bytes[layout.layer_bytes()], &bytes[0], layout.layer_bytes());
  const uint64_t here = digest_layer(layout, bytes.data(), 0, 0, 4);
  EXPECT_NE(here, digest_layer(layout, bytes.data(), 1, 0, 4)) << "layer";
  EXPECT_NE(here, digest_layer(layout, bytes.data(), 0, 4, 4)) << "position";
  KvLayout shifted = layout;
  shifted.head_begin = 2;
  shifted.total_heads = 4;
  EXPECT_NE(here, digest_layer(shifted, bytes.data(), 0, 0, 4)) << "head";
  auto swapped = bytes;  // K and V exchanged
  std::memcpy(&swapped[0], &bytes[layout.plane_bytes()], layout.plane_bytes());
  std::memcpy(&swapped[layout.plane_bytes()], &bytes[0], layout.plane_bytes());
  EXPECT_NE(here, digest_layer(layout, swapped.data(), 0, 0, 4)) << "plane";
}

// The value travels between hosts and versions: it must not change by accident. Expected values are
// from another implementation of the formula (Python's xxhash).
TEST(Digest, ValueIsFixed) {
  const KvLayout layout = KvLayout::full_kv(2, 1, 8, DType::kBF16, 2);
  std::vector<std::byte> bytes(layout.block_bytes());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i);
  EXPECT_EQ(digest_layer(layout, bytes.data(), 1, 6, 2), 0xb3cbd2791af29320u);
  const KvLayout wide = KvLayout::full_kv(1, 1, 100, DType::kBF16, 1);
  std::vector<std::byte> vectors(wide.block_bytes());
  for (size_t i = 0; i < vectors.size(); ++i) vectors[i] = std::byte(i);
  EXPECT_EQ(digest_layer(wide, vectors.data(), 0, 9, 1), 0x70500bffdad2d0e8u);
  const std::vector<TokenId> tokens{1, 2, 3};
  EXPECT_EQ(hash_tokens(tokens), 0x6bbf7429332bea48u);
}

TEST(DigestTable, ForgetsOlderContent) {
  DigestTable table(4, 2);
  const BlockId b{1};
  table.set(b, Generation{5}, 1, 11);
  EXPECT_FALSE(table.complete(b, Generation{5}));
  table.set(b, Generation{5}, 0, 10);
  ASSERT_TRUE(table.complete(b, Generation{5}));
  EXPECT_EQ(table.layers(b)[0], 10u);
  EXPECT_EQ(table.layers(b)[1], 11u);
  EXPECT_FALSE(table.complete(b, Generation{6}));
  table.set(b, Generation{6}, 0, 12);
  EXPECT_FALSE(table.complete(b, Generation{6}));
  EXPECT_FALSE(table.complete(b, Generation{5}));
}

}  // namespace
}  // namespace baton::kvcache
