#include "common/kvcache/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "common/kvcache/kv_cache.h"

namespace baton::kvcache {
namespace {

using testing::HasSubstr;

KvLayout good() { return KvLayout::full_kv(30, 3, 64, DType::kBF16, 16); }

TEST(KvLayout, FullKvIsBlockMajor) {
  const KvLayout layout = good();
  ASSERT_TRUE(layout.validate());
  EXPECT_EQ(layout.vector_bytes(), 128u);
  EXPECT_EQ(layout.block_bytes(), 30u * 2 * 3 * 16 * 128);
  EXPECT_EQ(layout.offset(BlockId{2}, 3, 1, 2, 5),
            2 * layout.block_bytes() + 3 * layout.layer_bytes() + layout.plane_bytes() +
                2 * layout.head_bytes() + 5 * 128);
  EXPECT_EQ(layout.blocks_for(0), 0u);
  EXPECT_EQ(layout.blocks_for(16), 1u);
  EXPECT_EQ(layout.blocks_for(17), 2u);
}

// A block of several shards is one shard behind the other, each as dense as a layout of its own.
TEST(KvLayout, ShardsLieOneAfterTheOtherInABlock) {
  KvLayout layout = good();
  layout.shard_heads = {2, 1};
  ASSERT_TRUE(layout.validate());
  EXPECT_EQ(layout.block_bytes(), good().block_bytes());
  size_t offset = 0;
  uint32_t head = 0;
  for (uint32_t i = 0; i < 2; ++i) {
    const KvLayout shard = layout.shard(i);
    EXPECT_EQ(shard.num_heads(), layout.shard_heads[i]);
    EXPECT_EQ(shard.head_begin, head);
    EXPECT_EQ(shard.total_heads, 3u);
    EXPECT_EQ(layout.shard_offset(i), offset);
    for (const uint32_t block : {0u, 3u})
      for (const uint32_t layer : {0u, 7u})
        for (const uint32_t plane : {0u, 1u})
          for (uint32_t h = 0; h < shard.num_heads(); ++h)
            EXPECT_EQ(layout.offset(BlockId{block}, layer, plane, head + h, 5),
                      offset + shard.offset(BlockId{block}, layer, plane, h, 5));
    offset += shard.block_bytes();
    head += shard.num_heads();
  }
  EXPECT_EQ(offset, layout.block_bytes());
  EXPECT_NE(layout.to_string(), good().to_string());
  EXPECT_EQ(good().shard(0), good());
}

TEST(KvCache, AShardEndsWithItsLastBlock) {
  KvLayout layout = good();
  layout.shard_heads = {1, 1, 1};
  std::vector<std::byte> memory(4 * layout.block_bytes());
  const auto cache = KvCache::create(memory, layout, 4);
  ASSERT_TRUE(cache);
  for (uint32_t i = 0; i < 3; ++i) {
    const KvCache shard = cache->shard(i);
    EXPECT_EQ(shard.block(BlockId{3}).size(), layout.block_bytes() / 3);
    EXPECT_EQ(shard.at(BlockId{3}, 2, 1), cache->at(BlockId{3}, 2, 1, i));
    EXPECT_EQ(shard.memory().data(), cache->at(BlockId{0}, 0, 0, i));
    EXPECT_EQ(shard.memory().data() + shard.memory().size(),
              shard.block(BlockId{3}).data() + shard.block(BlockId{3}).size());
  }
}

struct BadLayout {
  const char* what;
  Errc code;
  std::function<void(KvLayout&)> change;
};

TEST(KvLayout, RefusesByName) {
  const std::vector<BadLayout> cases = {
      {"0 layer groups", Errc::kUnsupported, [](KvLayout& l) { l.groups.clear(); }},
      {"2 layer groups", Errc::kUnsupported, [](KvLayout& l) { l.groups.push_back(l.groups[0]); }},
      {"'window'", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].kind = GroupKind::kWindow; }},
      {"'state'", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].kind = GroupKind::kState; }},
      {"1 planes", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].planes.pop_back(); }},
      {"'k' and 'v'", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].planes[0].name = "c"; }},
      {"differ", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].planes[1].heads = 2; }},
      {"differ", Errc::kUnsupported, [](KvLayout& l) { l.groups[0].planes[1].vector_bytes = 64; }},
      {"i32", Errc::kUnsupported, [](KvLayout& l) { l.dtype = DType::kI32; }},
      {"layers", Errc::kInvalidArgument, [](KvLayout& l) { l.groups[0].layer_end = 0; }},
      {"layers", Errc::kInvalidArgument, [](KvLayout& l) { l.groups[0].layer_begin = 1; }},
      {"layers", Errc::kInvalidArgument, [](KvLayout& l) { l.groups[0].layer_end = 1u << 31; }},
      {"heads", Errc::kInvalidArgument, [](KvLayout& l) { l.head_begin = 1; }},
      {"shards", Errc::kInvalidArgument,
       [](KvLayout& l) {
         l.shard_heads = {1, 1};
       }},
      {"shards", Errc::kInvalidArgument,
       [](KvLayout& l) {
         l.shard_heads = {3, 0};
       }},
      {"shards", Errc::kInvalidArgument,
       [](KvLayout& l) {
         l.shard_heads = {UINT32_MAX, 4};
       }},
      {"shard", Errc::kInvalidArgument, [](KvLayout& l) { l.shard_block_stride = 1; }},
      {"heads", Errc::kInvalidArgument, [](KvLayout& l) { l.head_begin = UINT32_MAX; }},
      {"heads", Errc::kInvalidArgument,
       [](KvLayout& l) {
         for (KvPlane& p : l.groups[0].planes) p.heads = 0;
       }},
      {"heads", Errc::kInvalidArgument, [](KvLayout& l) { l.total_heads = UINT32_MAX; }},
      {"3 bytes", Errc::kInvalidArgument,
       [](KvLayout& l) {
         for (KvPlane& p : l.groups[0].planes) p.vector_bytes = 3;
       }},
      {"bytes", Errc::kInvalidArgument,
       [](KvLayout& l) {
         for (KvPlane& p : l.groups[0].planes) p.vector_bytes = UINT32_MAX - 1;
       }},
      {"0 tokens", Errc::kInvalidArgument, [](KvLayout& l) { l.block_tokens = 0; }},
      {"24 tokens", Errc::kInvalidArgument, [](KvLayout& l) { l.block_tokens = 24; }},
      {"512 tokens", Errc::kInvalidArgument, [](KvLayout& l) { l.block_tokens = 512; }},
      {"rope", Errc::kInvalidArgument, [](KvLayout& l) { l.rope.assign(5000, 'x'); }},
      {"larger than any memory", Errc::kInvalidArgument,
       [](KvLayout& l) {
         l.groups[0].layer_end = 65535;
         for (KvPlane& p : l.groups[0].planes) p.heads = 4096, p.vector_bytes = 1u << 20;
         l.total_heads = 4096;
       }},
  };
  for (const BadLayout& c : cases) {
    KvLayout layout = good();
    c.change(layout);
    const status s = layout.validate();
    ASSERT_FALSE(s) << c.what;
    EXPECT_EQ(s.error().code, c.code) << c.what;
    EXPECT_THAT(s.error().message, HasSubstr(c.what));
  }
}

TEST(KvLayout, TextTellsLayoutsApart) {
  const std::vector<std::function<void(KvLayout&)>> changes = {
      [](KvLayout& l) { l.dtype = DType::kF16; },
      [](KvLayout& l) { l.block_tokens = 32; },
      [](KvLayout& l) { l.head_begin = 1; },
      [](KvLayout& l) { l.total_heads = 6; },
      [](KvLayout& l) { l.rope = "theta=1e4"; },
      [](KvLayout& l) { l.groups[0].sharded = true; },
      [](KvLayout& l) { l.groups[0].layer_end = 29; },
      [](KvLayout& l) { l.groups[0].kind = GroupKind::kWindow; },
      [](KvLayout& l) { l.groups[0].planes[1].name = "w"; },
      [](KvLayout& l) { l.groups[0].planes[0].heads = 2; },
  };
  EXPECT_EQ(good().to_string(), good().to_string());
  for (const auto& change : changes) {
    KvLayout layout = good();
    change(layout);
    EXPECT_NE(layout.to_string(), good().to_string()) << layout.to_string();
  }
}

TEST(KvCache, ViewsMemoryThroughTheLayout) {
  const KvLayout layout = KvLayout::full_kv(2, 1, 8, DType::kBF16, 4);
  std::vector<std::byte> memory(3 * layout.block_bytes() + 5);
  EXPECT_EQ(blocks_that_fit(layout, memory.size()), 3u);
  const auto cache = KvCache::create(memory, layout, 3);
  ASSERT_TRUE(cache);
  EXPECT_EQ(cache->memory().size(), 3 * layout.block_bytes());
  EXPECT_EQ(cache->block(BlockId{1}).data(), memory.data() + layout.block_bytes());
  EXPECT_EQ(cache->layer(BlockId{1}, 1).data(), cache->at(BlockId{1}, 1));
  EXPECT_EQ(cache->layer(BlockId{1}, 1).size(), layout.layer_bytes());
  EXPECT_FALSE(KvCache::create(memory, layout, 4));
  EXPECT_FALSE(KvCache::create(memory, KvLayout::full_kv(2, 0, 8, DType::kBF16, 4), 1));
}

}  // namespace
}  // namespace baton::kvcache
