#include "kvtransfer/stream_digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kvtransfer/range_digest.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {
namespace {

// Runs of neighbours, here and there.
std::vector<BlockId> some_blocks(uint32_t n, std::mt19937& random) {
  std::vector<uint32_t> begins;
  for (uint32_t b = 0; b < n; b += 4) begins.push_back(b);
  std::shuffle(begins.begin(), begins.end(), random);
  std::vector<BlockId> ids;
  for (const uint32_t begin : begins) {
    for (uint32_t b = begin; b < begin + 4; ++b) ids.emplace_back(b);
  }
  return ids;
}

// A read of a rectangle, whose bytes come as the transport brings them: piece after piece.
TEST(StreamDigest, AgreesWithTheDigestOfTheRange) {
  constexpr uint32_t kBlocks = 24, kFirst = 32;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    auto l = kvcache::KvLayout::full_kv(4, 3, 8, DType::kBF16, 16);
    if (seed % 4 == 1) l.shard_heads = {1, 2};
    if (seed % 4 == 2) l.shard_heads = {1, 1, 1};
    const std::vector<BlockId> from = some_blocks(kBlocks, random),
                               to = some_blocks(kBlocks, random);
    const uint32_t tokens_end = kFirst + kBlocks * 16 - random() % 16;
    const uint32_t first = random() % kBlocks, count = 1 + random() % (kBlocks - first);
    const uint32_t layer = seed % 3 == 0 ? 0 : random() % 4;
    const uint32_t layer_end = seed % 3 == 0 ? 4 : layer + 1 + random() % (4 - layer);
    StartRead read;
    read.range = {layer, layer_end, kFirst + first * 16,
                  std::min(kFirst + (first + count) * 16, tokens_end)};
    read.blocks.assign(to.begin() + first, to.begin() + first + count);
    read.first_token = read.range.token_begin;
    const std::vector<BlockId> there(from.begin() + first, from.begin() + first + count);
    plan_transfer(l, {there, read.range.token_begin}, l, {read.blocks, read.first_token},
                  read.range, read.segments);
    std::vector<std::byte> source(kBlocks * l.block_bytes()), sink(source.size());
    write_kv(l, source.data(), {from, kFirst}, {0, 4, kFirst, tokens_end}, seed);

    std::vector<std::pair<uint64_t, uint64_t>> bytes;  // of the stream: where from, where to
    for (const Segment& s : read.segments) {
      for (uint64_t piece = 0; piece < s.count; ++piece) {
        for (uint64_t i = 0; i < s.bytes; ++i) {
          bytes.emplace_back(s.source_offset + piece * s.source_stride + i,
                             s.sink_offset + piece * s.sink_stride + i);
        }
      }
    }
    StreamDigest digest;
    for (size_t at = 0; at < bytes.size();) {
      const size_t end = std::min(bytes.size(), at + 1 + random() % (2 * l.block_bytes()));
      for (; at < end; ++at) sink[bytes[at].second] = source[bytes[at].first];
      digest.advance(l, sink.data(), read, at);
    }
    EXPECT_EQ(digest.sum(),
              digest_range(l, source.data(), {there, read.range.token_begin}, read.range))
        << seed;
    // All that came was looked at when it did.
    std::ranges::fill(sink, std::byte{1});
    const uint64_t before = digest.sum();
    digest.advance(l, sink.data(), read, UINT64_MAX);
    EXPECT_EQ(digest.sum(), before) << seed;
  }
}

TEST(StreamDigest, DamageShows) {
  const auto l = kvcache::KvLayout::full_kv(2, 2, 8, DType::kBF16, 16);
  StartRead read;
  read.blocks = {BlockId{1}, BlockId{0}};
  read.range = {0, 2, 0, 32};
  plan_transfer(l, {read.blocks, 0}, l, {read.blocks, 0}, read.range, read.segments);
  std::vector<std::byte> sink(2 * l.block_bytes());
  write_kv(l, sink.data(), {read.blocks, 0}, read.range, 7);
  const uint64_t right = digest_range(l, sink.data(), {read.blocks, 0}, read.range);
  for (size_t i = 0; i < sink.size(); i += 13) {
    sink[i] ^= std::byte{4};
    StreamDigest digest;
    digest.advance(l, sink.data(), read, UINT64_MAX);
    EXPECT_NE(digest.sum(), right);
    sink[i] ^= std::byte{4};
  }
}

}  // namespace
}  // namespace baton::kvtransfer
