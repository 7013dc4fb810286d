#include "common/engine/kv_mirror.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "common/kvcache/digest.h"
#include "tests/fakes/fake_gpu.h"

namespace baton::engine {
namespace {

using kvcache::KvCache;
using kvcache::KvLayout;
using testing::IsEmpty;

constexpr uint32_t kLayers = 3, kBlocks = 8, kBlockTokens = 16, kSteps = 2;
constexpr std::byte kUntouched{0x5a};

// Heads 2 and 3 of 4, so that digests depend on which heads they are.
KvLayout some_layout() {
  KvLayout layout = KvLayout::full_kv(kLayers, 2, 16, DType::kBF16, kBlockTokens);
  layout.head_begin = 2;
  layout.total_heads = 4;
  return layout;
}

std::vector<BlockId> ids(std::initializer_list<uint32_t> values) {
  std::vector<BlockId> blocks;
  for (const uint32_t v : values) blocks.push_back(BlockId{v});
  return blocks;
}

class KvMirrorTest : public testing::Test {
 protected:
  KvMirrorTest() {
    gpu.set_jitter(std::chrono::microseconds(100));
    std::mt19937 random(11);
    for (std::byte& b : image) b = static_cast<std::byte>(random());
  }
  ~KvMirrorTest() override { stream->synchronize(); }

  KvCache cache_of(std::span<std::byte> memory) const {
    return KvCache::create(memory, layout, kBlocks).value();
  }
  StepSequence& add(StepBatch& batch, uint32_t position, uint32_t rows, bool digest,
                    const std::vector<BlockId>& table) {
    StepSequence& s = batch.add_sequence();
    s.position = position;
    s.num_rows = rows;
    s.digest = digest;
    s.block_table = table;
    return s;
  }
  // What a pass does: K and V of all blocks' layer, as the image has them, into the device's cache.
  void compute(uint32_t layer) {
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const auto from = expected.layer(BlockId{b}, layer);
      gpu.copy(*stream, cache.at(BlockId{b}, layer), from.data(), from.size());
    }
  }
  void fill_device(std::byte value) {
    filling.assign(bytes, value);
    gpu.copy(*stream, device_memory.data(), filling.data(), bytes);
    stream->synchronize();
  }
  uint64_t digest(BlockId block, uint32_t layer, uint32_t position, uint32_t tokens) const {
    return kvcache::digest_layer(layout, expected.block(block).data(), layer, position, tokens);
  }
  // How many of the block's tokens are in the mirror, in all its layers; none beyond them may be.
  uint32_t tokens_in_mirror(uint32_t block) const {
    uint32_t there = 0;
    for (uint32_t token = 0; token < kBlockTokens; ++token) {
      uint32_t same = 0, untouched = 0, vectors = 0;
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        for (uint32_t head = 0; head < 2 * layout.num_heads(); ++head, ++vectors) {
          const uint32_t plane = head / layout.num_heads(), h = head % layout.num_heads();
          const std::byte* v = mirror_cache.at(BlockId{block}, layer, plane, h, token);
          const std::byte* want = expected.at(BlockId{block}, layer, plane, h, token);
          same += std::equal(v, v + layout.vector_bytes(), want);
          untouched += std::all_of(v, v + layout.vector_bytes(),
                                   [](std::byte b) { return b == kUntouched; });
        }
      }
      EXPECT_TRUE(same == vectors || untouched == vectors) << block << ", token " << token;
      EXPECT_TRUE(same == 0 || there == token) << block << ", token " << token;
      there += same == vectors;
    }
    return there;
  }
  // Blocks whose contents on the device are the image's.
  std::vector<uint32_t> blocks_on_device() {
    std::vector<std::byte> got(bytes);
    gpu.copy(*stream, got.data(), device_memory.data(), bytes);
    stream->synchronize();
    std::vector<uint32_t> blocks;
    for (uint32_t b = 0; b < kBlocks; ++b) {
      const auto* begin = got.data() + b * layout.block_bytes();
      if (std::equal(begin, begin + layout.block_bytes(), expected.block(BlockId{b}).data())) {
        blocks.push_back(b);
      }
    }
    return blocks;
  }

  const KvLayout layout = some_layout();
  const size_t bytes = kBlocks * layout.block_bytes();
  // What the cache holds once it is computed; the mirror's memory.
  std::vector<std::byte> image = std::vector<std::byte>(bytes);
  std::vector<std::byte> host = std::vector<std::byte>(bytes, kUntouched), filling;
  device::FakeGpu gpu;
  const ops::Ops ops = ops::fake_gpu_ops();
  std::unique_ptr<device::Stream> stream = gpu.make_stream();
  device::Buffer device_memory = gpu.allocate(bytes).value();
  KvCache cache = cache_of({device_memory.data(), bytes});
  KvCache mirror_cache = cache_of(host), expected = cache_of(image);
  std::unique_ptr<KvMirror> mirror =
      KvMirror::create(cache, mirror_cache, gpu, ops, 12, kSteps).value();
};

TEST_F(KvMirrorTest, TakesOutWhatIsToBeDigestedAndNothingElse) {
  StepBatch batch;
  add(batch, 5, 30, true, ids({3, 0, 6}));  // from within a block to within another
  add(batch, 0, 20, false, ids({1, 2}));
  add(batch, 32, 16, true, ids({7, 7, 4}));  // one whole block
  add(batch, 16, 1, true, ids({7, 5}));
  mirror->begin(0, batch);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    compute(layer);
    mirror->take_out(0, *stream, layer);
  }
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    mirror->finish(0, layer, batch);
    const auto& first = batch.sequences[0].digests;
    ASSERT_EQ(first.size(), kLayers * 3u);
    EXPECT_EQ(first[layer * 3 + 0], digest(BlockId{3}, layer, 0, 16));
    EXPECT_EQ(first[layer * 3 + 1], digest(BlockId{0}, layer, 16, 16));
    EXPECT_EQ(first[layer * 3 + 2], digest(BlockId{6}, layer, 32, 3));
    ASSERT_EQ(batch.sequences[2].digests.size(), kLayers);
    EXPECT_EQ(batch.sequences[2].digests[layer], digest(BlockId{4}, layer, 32, 16));
    ASSERT_EQ(batch.sequences[3].digests.size(), kLayers);
    EXPECT_EQ(batch.sequences[3].digests[layer], digest(BlockId{5}, layer, 16, 1));
  }
  EXPECT_THAT(batch.sequences[1].digests, IsEmpty());
  std::vector<uint32_t> tokens;
  for (uint32_t b = 0; b < kBlocks; ++b) tokens.push_back(tokens_in_mirror(b));
  EXPECT_THAT(tokens, testing::ElementsAre(16, 0, 0, 16, 16, 1, 3, 0));
}

TEST_F(KvMirrorTest, ALayerIsTakenOutWhenItHasBeenComputed) {
  StepBatch batch;
  add(batch, 0, 16, true, ids({2}));
  std::promise<void> go;
  static_cast<device::FakeStream&>(*stream).enqueue(
      [wait = go.get_future().share()](device::CpuStream&) { wait.wait(); });
  mirror->begin(1, batch);
  compute(0);
  mirror->take_out(1, *stream, 0);
  // The next layer does not wait for the copy: other work may follow on the stream.
  compute(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // for a copy that came too early
  go.set_value();
  mirror->finish(1, 0, batch);
  EXPECT_EQ(batch.sequences[0].digests[0], digest(BlockId{2}, 0, 0, 16));
}

TEST_F(KvMirrorTest, StepsInFlightDoNotMeet) {
  for (uint32_t layer = 0; layer < kLayers; ++layer) compute(layer);
  std::array<StepBatch, kSteps> batches;
  const auto begin = [&](uint32_t i) {
    StepBatch& batch = batches[i % kSteps];
    batch.clear();
    add(batch, i % 20, 1 + i % 11, true, ids({i % 8, (i + 1) % 8}));
    mirror->begin(i % kSteps, batch);
    for (uint32_t l = 0; l < kLayers; ++l) mirror->take_out(i % kSteps, *stream, l);
  };
  const auto finish = [&](uint32_t i) {
    const StepSequence& s = batches[i % kSteps].sequences[0];
    const uint32_t first = s.position / kBlockTokens, end = s.position + s.num_rows;
    const uint32_t blocks = layout.blocks_for(end) - first;
    for (uint32_t l = 0; l < kLayers; ++l) {
      mirror->finish(i % kSteps, l, batches[i % kSteps]);
      for (uint32_t b = 0; b < blocks; ++b) {
        const uint32_t position = (first + b) * kBlockTokens;
        EXPECT_EQ(s.digests[l * blocks + b], digest(s.block_table[first + b], l, position,
                                                    std::min(kBlockTokens, end - position)));
      }
    }
  };
  begin(0);
  for (uint32_t i = 1; i < 60; ++i) {
    begin(i);
    finish(i - 1);
  }
  finish(59);
}

TEST_F(KvMirrorTest, BringsInWholeBlocks) {
  fill_device(kUntouched);
  std::copy(image.begin(), image.end(), host.begin());
  mirror->bring_in(*stream, {});
  EXPECT_EQ(gpu.counts().imports, 0u);
  mirror->bring_in(*stream, ids({6, 1}));
  EXPECT_EQ(gpu.counts().imports, 1u);
  EXPECT_THAT(blocks_on_device(), testing::ElementsAre(1, 6));
}

// The lists of those that are on their way are not written again.
TEST_F(KvMirrorTest, TheHostWaitsWhereTooManyArrive) {
  fill_device(kUntouched);
  std::copy(image.begin(), image.end(), host.begin());
  gpu.hold();
  for (const uint32_t block : {0u, 2u, 4u}) mirror->bring_in(*stream, ids({block}));
  auto rest = std::async(std::launch::async, [&] {
    for (const uint32_t block : {6u, 7u, 5u}) mirror->bring_in(*stream, ids({block}));
  });
  EXPECT_EQ(rest.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  gpu.let_go();
  rest.get();
  EXPECT_THAT(blocks_on_device(), testing::ElementsAre(0, 2, 4, 5, 6, 7));
}

TEST_F(KvMirrorTest, BringsInMoreThanThereAreBlocks) {
  fill_device(kUntouched);
  std::copy(image.begin(), image.end(), host.begin());
  std::vector<BlockId> blocks;
  for (uint32_t i = 0; i < 3 * kBlocks; ++i) blocks.push_back(BlockId{i / 3});
  mirror->bring_in(*stream, blocks);
  EXPECT_EQ(blocks_on_device().size(), kBlocks);
}

// Where peers read the cache itself.
TEST_F(KvMirrorTest, WithoutAMirrorDigestsAloneAreTaken) {
  mirror = KvMirror::create(cache, cache, gpu, ops, 12, kSteps).value();
  StepBatch batch;
  add(batch, 5, 30, true, ids({3, 0, 6}));
  mirror->begin(0, batch);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    compute(layer);
    mirror->take_out(0, *stream, layer);
  }
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    mirror->finish(0, layer, batch);
    EXPECT_EQ(batch.sequences[0].digests[layer * 3 + 1], digest(BlockId{0}, layer, 16, 16));
    EXPECT_EQ(batch.sequences[0].digests[layer * 3 + 2], digest(BlockId{6}, layer, 32, 3));
  }
  mirror->bring_in(*stream, ids({1, 2}));  // what arrives is there
  EXPECT_EQ(gpu.counts().imports, 0u);
  EXPECT_EQ(blocks_on_device().size(), kBlocks);
}

// What one worker takes out another brings in, and computes on.
TEST_F(KvMirrorTest, GoesThereAndBack) {
  StepBatch batch;
  add(batch, 0, 32, true, ids({3, 5}));
  mirror->begin(0, batch);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    compute(layer);
    mirror->take_out(0, *stream, layer);
  }
  for (uint32_t layer = 0; layer < kLayers; ++layer) mirror->finish(0, layer, batch);
  fill_device(kUntouched);
  mirror->bring_in(*stream, ids({3, 5}));
  EXPECT_THAT(blocks_on_device(), testing::ElementsAre(3, 5));
}

}  // namespace
}  // namespace baton::engine
