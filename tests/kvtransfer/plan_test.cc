#include "kvtransfer/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <span>
#include <vector>

namespace baton::kvtransfer {
namespace {

using kvcache::KvLayout;

KvLayout layout(uint32_t block_tokens, uint32_t head_begin, uint32_t heads, uint32_t total_heads,
                uint32_t layers = 3) {
  KvLayout l = KvLayout::full_kv(layers, heads, 4, DType::kBF16, block_tokens);
  l.head_begin = head_begin;
  l.total_heads = total_heads;
  return l;
}

std::vector<BlockId> ids(std::initializer_list<uint32_t> values) {
  std::vector<BlockId> out;
  for (const uint32_t v : values) out.emplace_back(v);
  return out;
}

TEST(PlanTransfer, NeighbouringWholeBlocksAreOneSegment) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan;
  plan_transfer(l, {ids({4, 5, 6, 9}), 0}, l, {ids({1, 2, 3, 4}), 0}, {0, 3, 0, 64}, plan);
  const uint64_t block = l.block_bytes();
  EXPECT_EQ(plan,
            (std::vector<Segment>{{4 * block, block, 3 * block}, {9 * block, 4 * block, block}}));
}

TEST(PlanTransfer, LayersOfNeighbouringBlocksAreOneStridedSegment) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan;
  plan_transfer(l, {ids({4, 5, 6, 9}), 0}, l, {ids({1, 2, 3, 4}), 0}, {1, 3, 0, 64}, plan);
  const uint64_t block = l.block_bytes(), layer = l.layer_bytes();
  EXPECT_EQ(plan,
            (std::vector<Segment>{{4 * block + layer, block + layer, 2 * layer, 3, block, block},
                                  {9 * block + layer, 4 * block + layer, 2 * layer}}));
}

TEST(PlanTransfer, EqualStepsUpwardsAreOneStridedSegment) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan;
  plan_transfer(l, {ids({0, 2, 4}), 0}, l, {ids({7, 8, 9}), 0}, {0, 1, 0, 48}, plan);
  const uint64_t block = l.block_bytes();
  EXPECT_EQ(plan, (std::vector<Segment>{{0, 7 * block, l.layer_bytes(), 3, 2 * block, block}}));
}

TEST(PlanTransfer, NeighboursDownwardsOrOnOneSideOnlyAreNotOne) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan;
  plan_transfer(l, {ids({6, 5, 4}), 0}, l, {ids({1, 2, 3}), 0}, {0, 1, 0, 48}, plan);
  EXPECT_EQ(plan.size(), 3u);
  plan.clear();
  plan_transfer(l, {ids({4, 5, 6}), 0}, l, {ids({3, 2, 1}), 0}, {0, 3, 0, 48}, plan);
  EXPECT_EQ(plan.size(), 3u);
}

TEST(PlanTransfer, APartlyFilledLastBlockIsReadWhole) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan;
  plan_transfer(l, {ids({7}), 16}, l, {ids({3}), 16}, {0, 1, 16, 19}, plan);
  EXPECT_EQ(plan,
            (std::vector<Segment>{{7 * l.block_bytes(), 3 * l.block_bytes(), l.layer_bytes()}}));
}

TEST(PlanTransfer, WhatTheCallerHadIsNotMerged) {
  const KvLayout l = layout(16, 0, 2, 2);
  std::vector<Segment> plan = {{0, 0, 4 * l.block_bytes()}};
  plan_transfer(l, {ids({4}), 0}, l, {ids({4}), 0}, {0, 3, 0, 16}, plan);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].bytes, 4 * l.block_bytes());
  EXPECT_EQ(plan[1].bytes, l.block_bytes());
}

TEST(PlanTransfer, ARangeOfHeadsIsOneStridedSegmentAPlane) {
  const KvLayout whole = layout(16, 0, 4, 4), half = layout(16, 2, 2, 4);
  std::vector<Segment> plan;
  plan_transfer(whole, {ids({0, 1}), 0}, half, {ids({0, 1}), 0}, {0, 1, 0, 32}, plan);
  const uint64_t plane = half.plane_bytes();
  const uint64_t from = 2 * whole.head_bytes(), block = whole.block_bytes();
  EXPECT_EQ(plan, (std::vector<Segment>{
                      {from, 0, plane, 2, block, half.block_bytes()},
                      {whole.plane_bytes() + from, plane, plane, 2, block, half.block_bytes()}}));
}

KvLayout split(KvLayout l, std::vector<uint32_t> shard_heads) {
  l.shard_heads = std::move(shard_heads);
  return l;
}

TEST(PlanTransfer, ShardsThatLieAlikeAreOneRunTogetherOrOneStridedSegmentEach) {
  const KvLayout l = split(layout(16, 0, 4, 4), {1, 3});
  std::vector<Segment> plan;
  plan_transfer(l, {ids({4, 5}), 0}, l, {ids({1, 2}), 0}, {0, 3, 0, 32}, plan);
  const uint64_t block = l.block_bytes();
  EXPECT_EQ(plan, (std::vector<Segment>{{4 * block, block, 2 * block}}));
  plan.clear();
  plan_transfer(l, {ids({4, 5}), 0}, l, {ids({1, 2}), 0}, {1, 2, 0, 32}, plan);
  const uint64_t layer = l.layer_bytes(), second = block / 4 + 3 * layer / 4;
  EXPECT_EQ(plan, (std::vector<Segment>{
                      {4 * block + layer / 4, block + layer / 4, layer / 4, 2, block, block},
                      {4 * block + second, block + second, 3 * layer / 4, 2, block, block}}));
}

TEST(PlanTransfer, TwoRanksToOneIsOneStridedSegmentAPlaneAndRank) {
  const KvLayout two = split(layout(16, 0, 4, 4), {2, 2}), one = layout(16, 0, 4, 4);
  std::vector<Segment> plan;
  plan_transfer(two, {ids({0, 1}), 0}, one, {ids({3, 4}), 0}, {0, 1, 0, 32}, plan);
  ASSERT_EQ(plan.size(), 4u);
  for (const Segment& s : plan) {
    EXPECT_EQ(s.bytes, one.plane_bytes() / 2);
    EXPECT_EQ(s.count, 2u);
  }
}

// --- the property: every vector of the range, once, at its place --------------------------------

struct Vector {  // where a KV vector belongs, whoever holds it
  uint32_t layer, plane, head, position;
  friend auto operator<=>(const Vector&, const Vector&) = default;
};

// Byte offset of each vector's start in one side's cache.
std::map<uint64_t, Vector> places(const KvLayout& l, const BlockRun& run) {
  std::map<uint64_t, Vector> out;
  for (size_t i = 0; i < run.blocks.size(); ++i)
    for (uint32_t layer = 0; layer < l.num_layers(); ++layer)
      for (uint32_t plane = 0; plane < 2; ++plane)
        for (uint32_t head = 0; head < l.num_heads(); ++head)
          for (uint32_t t = 0; t < l.block_tokens; ++t)
            out[l.offset(run.blocks[i], layer, plane, head, t)] = {
                layer, plane, l.head_begin + head,
                run.first_token + static_cast<uint32_t>(i) * l.block_tokens + t};
  return out;
}

std::vector<BlockId> random_blocks(size_t n, std::mt19937& random) {
  std::vector<BlockId> all;
  for (uint32_t i = 0; i < 3 * n + 2; ++i) all.emplace_back(i);
  // Half the time in long runs, so that there is something to merge.
  if (random() % 2) std::shuffle(all.begin(), all.end(), random);
  return {all.begin() + 1, all.begin() + 1 + static_cast<long>(n)};
}

// Runs of blocks that neighbour on both sides.
size_t runs(std::span<const BlockId> source, std::span<const BlockId> sink, size_t n) {
  size_t runs = 1;
  for (size_t i = 1; i < n; ++i) {
    runs += source[i].value != source[i - 1].value + 1 || sink[i].value != sink[i - 1].value + 1;
  }
  return runs;
}

void check_plan(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&random](uint32_t lo, uint32_t hi) -> uint32_t {
    return lo + random() % (hi - lo + 1);
  };
  const uint32_t total = pick(1, 6), layers = pick(1, 4);
  const uint32_t source_head = pick(0, total - 1), sink_head = pick(0, total - 1);
  // Every other time of several ranks.
  const auto cut = [&](KvLayout l) {
    for (uint32_t left = pick(0, 1) * l.num_heads(); left > 0; left -= l.shard_heads.back()) {
      l.shard_heads.push_back(pick(1, left));
    }
    return l;
  };
  const KvLayout source =
      cut(layout(4u << pick(0, 3), source_head, pick(1, total - source_head), total, layers));
  const bool alike = pick(0, 3) == 0;
  const KvLayout sink =
      alike ? source
            : cut(layout(4u << pick(0, 3), sink_head, pick(1, total - sink_head), total, layers));
  const uint32_t granule = std::max(source.block_tokens, sink.block_tokens);
  const uint32_t first = granule * pick(0, 2), tokens = first + pick(1, 3 * granule);
  // Chunks end on blocks of the source, except at the sequence's end.
  const uint32_t begin =
      first + source.block_tokens * pick(0, (tokens - first - 1) / source.block_tokens);
  const uint32_t end = std::min(
      tokens, begin + source.block_tokens * pick(1, 1 + (tokens - begin) / source.block_tokens));
  const uint32_t layer_begin = pick(0, layers - 1), layer_end = pick(layer_begin + 1, layers);

  const std::vector<BlockId> source_ids = random_blocks(source.blocks_for(tokens), random);
  const std::vector<BlockId> sink_ids = random_blocks(sink.blocks_for(tokens - first), random);
  const BlockRun from{source_ids, 0}, to{sink_ids, first};
  std::vector<Segment> plan;
  plan_transfer(source, from, sink, to, {layer_begin, layer_end, begin, end}, plan);

  const auto source_places = places(source, from), sink_places = places(sink, to);
  const uint64_t vector_bytes = source.vector_bytes();
  std::map<Vector, int> seen;
  for (size_t i = 0; i < plan.size(); ++i) {
    const Segment& s = plan[i];
    ASSERT_EQ(s.bytes % vector_bytes, 0u);
    ASSERT_GE(s.count, 1u);
    ASSERT_EQ(s.count == 1, s.source_stride == 0 && s.sink_stride == 0);
    ASSERT_TRUE(s.count == 1 || (s.source_stride >= s.bytes && s.sink_stride >= s.bytes));
    for (uint64_t piece = 0; piece < s.count; ++piece) {
      for (uint64_t at = 0; at < s.bytes; at += vector_bytes) {
        const auto a = source_places.find(s.source_offset + piece * s.source_stride + at);
        const auto b = sink_places.find(s.sink_offset + piece * s.sink_stride + at);
        ASSERT_TRUE(a != source_places.end() && b != sink_places.end()) << "seed " << seed;
        ASSERT_EQ(a->second, b->second) << "a vector at another's place, seed " << seed;
        ++seen[a->second];
      }
    }
    if (i > 0 && plan[i - 1].count == 1 && s.count == 1) {
      const Segment& before = plan[i - 1];
      ASSERT_FALSE(before.source_offset + before.bytes == s.source_offset &&
                   before.sink_offset + before.bytes == s.sink_offset)
          << "neighbours not merged, seed " << seed;
    }
  }
  if (lie_alike(source, sink)) {
    const uint32_t offset = first / source.block_tokens;  // the sink's blocks begin there
    ASSERT_LE(plan.size(), runs(std::span(source_ids).subspan(begin / source.block_tokens),
                                std::span(sink_ids).subspan(begin / source.block_tokens - offset),
                                source.blocks_for(end - begin)) *
                               source.num_shards())
        << "more than one descriptor a run, seed " << seed;
  }
  const uint32_t head_begin = std::max(source.head_begin, sink.head_begin);
  const uint32_t head_end =
      std::min(source.head_begin + source.num_heads(), sink.head_begin + sink.num_heads());
  for (uint32_t layer = layer_begin; layer < layer_end; ++layer)
    for (uint32_t plane = 0; plane < 2; ++plane)
      for (uint32_t head = head_begin; head < head_end; ++head)
        for (uint32_t position = begin; position < end; ++position)
          ASSERT_EQ((seen[{layer, plane, head, position}]), 1) << "seed " << seed;
  // Nothing else, but for what follows the sequence's end in its last block.
  for (const auto& [vector, count] : seen) {
    ASSERT_EQ(count, 1);
    ASSERT_TRUE(vector.layer >= layer_begin && vector.layer < layer_end);
    ASSERT_GE(vector.position, begin);
    ASSERT_TRUE(vector.position < end || end == tokens) << "seed " << seed;
  }
}

TEST(PlanTransfer, EveryVectorOnceAtItsPlace) {
  for (uint32_t seed = 1; seed <= 3000 && !::testing::Test::HasFatalFailure(); ++seed) {
    check_plan(seed);
  }
}

}  // namespace
}  // namespace baton::kvtransfer
