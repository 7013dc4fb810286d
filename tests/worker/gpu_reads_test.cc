#include "worker/gpu_reads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <random>
#include <set>

#include "common/kvcache/digest.h"
#include "tests/fakes/fake_gpu.h"

namespace baton::worker {
namespace {

using kvcache::KvCache;
using kvcache::KvLayout;
using kvtransfer::DeviceBlock;
using kvtransfer::DeviceMapId;
using kvtransfer::DeviceReadEnd;
using kvtransfer::DeviceRegion;
using testing::HasSubstr;

constexpr uint32_t kLayers = 3, kBlocks = 8, kBlockTokens = 16;

// Memory of one fake GPU, which two workers use. What is mapped has the address it has anyway.
struct Shared {
  std::set<void*> mapped;
};
Shared* shared = nullptr;  // of the test that runs: an unmapping knows no more than its address

class FakeSharing final : public device::MemorySharing {
 public:
  const std::string& device() const override { return name_; }
  result<device::SharedMemory> share(const device::Buffer& memory) override {
    return device::SharedMemory{name_, memory.bytes(),
                                std::to_string(reinterpret_cast<uintptr_t>(memory.data()))};
  }
  result<device::Buffer> map(const device::SharedMemory& theirs) override {
    if (theirs.key.empty()) return error(Errc::kUnavailable, "no way between the two");
    auto* data = reinterpret_cast<void*>(std::stoull(theirs.key));
    shared->mapped.insert(data);
    return device::Buffer(data, theirs.bytes, [](void* d, size_t) { shared->mapped.erase(d); });
  }

 private:
  const std::string name_ = "GPU-fake";
};

class GpuReadsTest : public testing::Test {
 protected:
  struct Side {
    device::Buffer memory;
    KvCache cache;
    std::unique_ptr<kvtransfer::DeviceReads> reads;
  };

  GpuReadsTest() {
    shared = &shared_;
    layout.head_begin = 2;
    layout.total_heads = 4;
    std::mt19937 random(3);
    for (std::byte& b : image) b = static_cast<std::byte>(random());
    make(source, true);
    make(sink, false);
    upload(source, image);
    upload(sink, std::vector<std::byte>(image.size(), std::byte{0x5a}));
    from = sink.reads->map(source.reads->region(), "it").value();
  }
  ~GpuReadsTest() override {
    gpu.let_go();
    sink.reads.reset();
    shared = nullptr;
  }

  void make(Side& side, bool is_read) {
    side.memory = gpu.allocate(image.size()).value();
    side.cache = KvCache::create({side.memory.data(), image.size()}, layout, kBlocks).value();
    side.reads = make_gpu_reads({side.cache, side.memory, gpu, ops, is_read},
                                std::make_unique<FakeSharing>())
                     .value();
  }
  void upload(Side& side, const std::vector<std::byte>& bytes) {
    gpu.copy(*stream, side.memory.data(), bytes.data(), bytes.size());
    stream->synchronize();
  }
  std::vector<std::byte> download(Side& side) {
    std::vector<std::byte> bytes(image.size());
    gpu.copy(*stream, bytes.data(), side.memory.data(), bytes.size());
    stream->synchronize();
    return bytes;
  }
  uint64_t digest_of(uint32_t block, uint32_t layer, uint32_t position, uint32_t tokens) const {
    return kvcache::digest_layer(layout, image.data() + layout.offset(BlockId{block}, 0), layer,
                                 position, tokens);
  }
  // Sleeps until something has ended.
  std::vector<DeviceReadEnd> wait() {
    std::vector<DeviceReadEnd> ends;
    while (ends.empty()) {
      if (sink.reads->arm()) {
        pollfd readable{sink.reads->event_fd(), POLLIN, 0};
        EXPECT_EQ(::poll(&readable, 1, 10000), 1) << "nobody woke it";
      }
      sink.reads->poll(ends);
    }
    return ends;
  }

  Shared shared_;
  KvLayout layout = KvLayout::full_kv(kLayers, 2, 16, DType::kBF16, kBlockTokens);
  std::vector<std::byte> image = std::vector<std::byte>(kBlocks * layout.block_bytes());
  device::FakeGpu gpu;
  const ops::Ops ops = ops::fake_gpu_ops();
  std::unique_ptr<device::Stream> stream = gpu.make_stream();
  Side source, sink;
  DeviceMapId from;
};

TEST_F(GpuReadsTest, SaysWhatPeersNeed) {
  EXPECT_EQ(source.reads->region().gpu, "GPU-fake");
  EXPECT_EQ(source.reads->region().bytes, image.size());
  EXPECT_FALSE(source.reads->region().key.empty());
  EXPECT_EQ(sink.reads->region().bytes, 0u);
  EXPECT_EQ(sink.reads->region().gpu, "GPU-fake");
}

TEST_F(GpuReadsTest, CopiesTheLayersOfBlocksAndTheirDigest) {
  gpu.set_jitter(std::chrono::microseconds(100));
  const DeviceBlock blocks[] = {{BlockId{6}, BlockId{1}, 32, 16}, {BlockId{0}, BlockId{7}, 48, 5}};
  ASSERT_TRUE(sink.reads->start(from, {99, 1, 3, blocks}));
  const auto ends = wait();
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(ends[0].cookie, 99u);
  uint64_t expected = 0;
  for (uint32_t layer = 1; layer < 3; ++layer) {
    expected += digest_of(6, layer, 32, 16) + digest_of(0, layer, 48, 5);
  }
  ASSERT_TRUE(ends[0].digest);
  EXPECT_EQ(*ends[0].digest, expected);
  const auto got = download(sink);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const auto same = [&](uint32_t there, uint32_t here) {
      return std::equal(image.begin() + layout.offset(BlockId{there}, layer),
                        image.begin() + layout.offset(BlockId{there}, layer) + layout.head_bytes(),
                        got.begin() + layout.offset(BlockId{here}, layer));
    };
    EXPECT_EQ(same(6, 1), layer >= 1);
    EXPECT_FALSE(same(0, 7)) << "five tokens of it";
  }
  EXPECT_EQ(download(source), image);
}

TEST_F(GpuReadsTest, SeveralEndInTheirOrder) {
  const DeviceBlock block[] = {{BlockId{6}, BlockId{1}, 0, 16}};
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < kvtransfer::kMaxDeviceReads; ++i) {
      ASSERT_TRUE(sink.reads->start(from, {i, static_cast<uint32_t>(i % kLayers),
                                           static_cast<uint32_t>(i % kLayers + 1), block}));
    }
    uint64_t next = 0;
    while (next < kvtransfer::kMaxDeviceReads) {
      for (const DeviceReadEnd& end : wait()) {
        EXPECT_EQ(end.cookie, next);
        EXPECT_EQ(*end.digest, digest_of(6, static_cast<uint32_t>(next % kLayers), 0, 16));
        ++next;
      }
    }
  }
}

TEST_F(GpuReadsTest, StaysMappedWhileItIsRead) {
  gpu.hold();
  const DeviceBlock block[] = {{BlockId{6}, BlockId{1}, 0, 16}};
  ASSERT_TRUE(sink.reads->start(from, {1, 0, 1, block}));
  sink.reads->unmap(from);
  EXPECT_EQ(shared_.mapped.size(), 1u);
  std::vector<DeviceReadEnd> ends;
  sink.reads->poll(ends);
  EXPECT_TRUE(ends.empty());
  EXPECT_TRUE(sink.reads->arm());
  gpu.let_go();
  EXPECT_EQ(wait().size(), 1u);
  EXPECT_TRUE(shared_.mapped.empty());
}

TEST_F(GpuReadsTest, ItsEndWaitsForWhatIsUnderWay) {
  gpu.set_jitter(std::chrono::microseconds(500));
  const DeviceBlock block[] = {{BlockId{6}, BlockId{1}, 0, 16}};
  for (uint64_t i = 0; i < kvtransfer::kMaxDeviceReads; ++i) {
    ASSERT_TRUE(sink.reads->start(from, {i, 0, kLayers, block}));
  }
  sink.reads.reset();
  EXPECT_TRUE(shared_.mapped.empty());
  const auto got = download(sink);
  const size_t to = layout.offset(BlockId{1}, 0), at = layout.offset(BlockId{6}, 0);
  EXPECT_TRUE(
      std::equal(got.begin() + to, got.begin() + to + layout.block_bytes(), image.begin() + at));
}

TEST_F(GpuReadsTest, WhatCannotBeMappedIsASentence) {
  const auto none = sink.reads->map({"GPU-other", 4096, ""}, "worker 7");
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message,
              HasSubstr("worker 7 cannot be read in its GPU's memory: no way"));
}

TEST_F(GpuReadsTest, ABlockThatTheOwnerHasNotIsAnError) {
  const DeviceBlock block[] = {{BlockId{kBlocks}, BlockId{1}, 0, 16}};
  EXPECT_FALSE(sink.reads->start(from, {1, 0, 1, block}));
  EXPECT_TRUE(sink.reads->arm());
}

}  // namespace
}  // namespace baton::worker
