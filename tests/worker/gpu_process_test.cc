#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <csignal>
#include <sstream>

#include "common/device/cuda/cuda_device.h"
#include "common/device/cuda/cuda_ipc.h"
#include "common/kvcache/digest.h"
#include "common/ops/cuda/cuda_ops.h"
#include "tests/fakes/talking_child.h"
#include "tests/worker/gpu_pattern.h"
#include "worker/gpu_reads.h"

// Two processes on one GPU: one reads the other's cache. Skips where there is no GPU or no CUDA.
namespace baton::worker {
namespace {

using kvtransfer::DeviceBlock;
using kvtransfer::DeviceMapId;
using kvtransfer::DeviceReadEnd;
using kvtransfer::DeviceRegion;
using testing::HasSubstr;

constexpr milliseconds kPatience{30'000};

// The program worker_gpu_source.
class Source : public fakes::TalkingChild {
 public:
  Source() : TalkingChild("worker_gpu_source", {}, kPatience) {}

  DeviceRegion region() {
    std::istringstream line(hear());
    DeviceRegion region;
    std::string hex;
    line >> region.gpu >> region.bytes >> hex;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      region.key += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return region;
  }
  void fill(uint64_t seed) {
    say("fill " + std::to_string(seed));
    EXPECT_EQ(hear(), "filled");
  }
};

class GpuProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = device::make_cuda_device(0);
    if (!device) GTEST_SKIP() << device.error().message;
    device_ = std::move(*device);
    ops_ = ops::cuda_ops({.half = DType::kBF16}).value();
    memory_ = device_->allocate(kPatternBlocks * layout_.block_bytes()).value();
    const auto cache =
        kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout_, kPatternBlocks)
            .value();
    stream_ = device_->make_stream();
    reads_ =
        make_gpu_reads({cache, memory_, *device_, ops_, false}, device::make_cuda_ipc(0).value())
            .value();
    source_ = std::make_unique<Source>();
    region_ = source_->region();
    ASSERT_FALSE(region_.key.empty()) << "the source did not start";
  }

  // Some blocks, elsewhere here, the last one in part.
  static std::vector<DeviceBlock> some_blocks() {
    std::vector<DeviceBlock> blocks;
    for (uint32_t i = 0; i < 20; ++i) {
      blocks.push_back({BlockId{(7 * i + 3) % kPatternBlocks}, BlockId{i}, i * 64, 64});
    }
    blocks.back().num_tokens = 21;
    return blocks;
  }
  uint64_t announced(uint64_t seed) const {
    const std::vector<std::byte> bytes = pattern(seed);
    uint64_t sum = 0;
    for (const DeviceBlock& b : some_blocks()) {
      for (uint32_t layer = 0; layer < layout_.num_layers(); ++layer) {
        sum += kvcache::digest_layer(layout_, bytes.data() + layout_.offset(b.from, 0), layer,
                                     b.position, b.num_tokens);
      }
    }
    return sum;
  }
  // Sleeps until it has ended.
  result<uint64_t> read(DeviceMapId from) {
    const auto blocks = some_blocks();
    BATON_CHECK_OK(reads_->start(from, {1, 0, layout_.num_layers(), blocks}));
    std::vector<DeviceReadEnd> ends;
    while (ends.empty()) {
      if (reads_->arm()) {
        pollfd readable{reads_->event_fd(), POLLIN, 0};
        if (::poll(&readable, 1, static_cast<int>(kPatience.count())) != 1)
          return error(Errc::kIo, "nobody woke it");
      }
      reads_->poll(ends);
    }
    return ends[0].digest;
  }
  std::vector<std::byte> download() {
    std::vector<std::byte> bytes(memory_.bytes());
    device_->copy(*stream_, bytes.data(), memory_.data(), bytes.size());
    stream_->synchronize();
    return bytes;
  }

  const kvcache::KvLayout layout_ = pattern_layout();
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  device::Buffer memory_;
  std::unique_ptr<device::Stream> stream_;
  std::unique_ptr<kvtransfer::DeviceReads> reads_;
  std::unique_ptr<Source> source_;
  DeviceRegion region_;
};

TEST_F(GpuProcessTest, ReadsAnothersCacheAndItsDigest) {
  EXPECT_EQ(region_.gpu, reads_->region().gpu) << "one GPU has one name";
  const auto from = reads_->map(region_, "the source");
  ASSERT_TRUE(from) << from.error().message;
  const auto digest = read(*from);
  ASSERT_TRUE(digest) << digest.error().message;
  EXPECT_EQ(*digest, announced(kPatternSeed));
  const auto there = pattern(kPatternSeed), here = download();
  for (const DeviceBlock& b : some_blocks()) {
    const size_t bytes = b.num_tokens * layout_.vector_bytes();
    const size_t to = layout_.offset(b.to, 3, 1, 2), at = layout_.offset(b.from, 3, 1, 2);
    EXPECT_TRUE(std::equal(here.begin() + to, here.begin() + to + bytes, there.begin() + at))
        << "block " << b.to.value;
  }
}

TEST_F(GpuProcessTest, WhatIsOverwrittenMeanwhileDoesNotMatch) {
  const auto from = reads_->map(region_, "the source");
  ASSERT_TRUE(from) << from.error().message;
  ASSERT_EQ(read(*from).value(), announced(kPatternSeed));
  source_->fill(8);
  EXPECT_EQ(read(*from).value(), announced(8));
  EXPECT_NE(announced(8), announced(kPatternSeed));
}

// Its memory stays until it is unmapped, and this process goes on whatever is read.
TEST_F(GpuProcessTest, ASourceThatIsKilledHarmsNobody) {
  const auto from = reads_->map(region_, "the source");
  ASSERT_TRUE(from) << from.error().message;
  source_->kill(SIGKILL);
  const auto digest = read(*from);
  if (digest) {
    EXPECT_EQ(*digest, announced(kPatternSeed));
  }
  reads_->unmap(*from);
  Source next;
  const auto again = reads_->map(next.region(), "the next");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(read(*again).value(), announced(kPatternSeed));
}

TEST_F(GpuProcessTest, WhatIsGoneCannotBeMapped) {
  source_->kill(SIGKILL);
  const auto from = reads_->map(region_, "the source");
  ASSERT_FALSE(from);
  EXPECT_THAT(from.error().message, HasSubstr("cudaIpcOpenMemHandle"));
}

TEST_F(GpuProcessTest, AWrongWordIsARefusalAndNothingElse) {
  DeviceRegion wrong = region_;
  for (char& c : wrong.key) c = static_cast<char>(c ^ 0x55);
  EXPECT_FALSE(reads_->map(wrong, "it"));
  wrong = region_;
  wrong.key.pop_back();
  EXPECT_FALSE(reads_->map(wrong, "it"));
  wrong = region_;
  wrong.bytes = uint64_t{1} << 40;  // more than there is
  const auto more = reads_->map(wrong, "it");
  ASSERT_FALSE(more);
  EXPECT_THAT(more.error().message, HasSubstr("bytes of the"));
  const auto from = reads_->map(region_, "it");
  ASSERT_TRUE(from) << from.error().message;
  EXPECT_EQ(read(*from).value(), announced(kPatternSeed));
}

}  // namespace
}  // namespace baton::worker
