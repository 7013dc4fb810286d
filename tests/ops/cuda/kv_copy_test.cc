#include <cstdlib>

#include "common/kvcache/digest.h"
#include "common/kvcache/kv_cache.h"
#include "tests/ops/cuda/cuda_testing.h"

namespace baton::ops {
namespace {

using kvcache::KvLayout;

struct Case {
  uint32_t layers, kv_heads, head_dim, block_tokens, head_begin;
};
void PrintTo(const Case& c, std::ostream* os) {
  *os << c.layers << "layers" << c.kv_heads << "x" << c.head_dim << "in" << c.block_tokens;
}

// A cache on the device and its mirror in host memory, both full of other values.
class CudaKvCopy : public OnGpu, public testing::WithParamInterface<Case> {
 protected:
  static constexpr uint32_t kBlocks = 24;

  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    if (fast_.export_kv == nullptr) GTEST_SKIP() << "this table copies no KV";
    const Case c = GetParam();
    layout_ = KvLayout::full_kv(c.layers, c.kv_heads, c.head_dim, half_type(), c.block_tokens);
    layout_.head_begin = c.head_begin;
    layout_.total_heads = c.head_begin + c.kv_heads;
    ASSERT_TRUE(layout_.validate());
    bytes_ = layout_.block_bytes() * kBlocks;
    const auto elements = static_cast<int64_t>(bytes_ / 2);
    there_ = fast_random(1, 1, elements);
    before_ = fast_random(2, 1, elements);
    // Whole pages, as a worker's: locking half a page would lock a stranger's other half.
    mirror_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, align(bytes_))));
    std::memcpy(mirror_.get(), before_.data.data(), bytes_);
    memory_ = upload(std::span<const uint16_t>(there_.data));
    lock_ = device_->lock_host(mirror_.get(), bytes_).value();
  }
  // The lock ends before the memory goes.
  void TearDown() override {
    OnGpu::TearDown();
    lock_ = {};
  }

  PagedKv kv(uint32_t layer) const {
    return {.base = memory_.data() + layer * layout_.layer_bytes(),
            .dtype = half_type(),
            .block_tokens = layout_.block_tokens,
            .num_kv_heads = layout_.num_heads(),
            .head_dim = GetParam().head_dim,
            .block_stride = layout_.block_bytes(),
            .plane_stride = layout_.plane_bytes(),
            .head_stride = layout_.head_bytes(),
            .token_stride = layout_.vector_bytes()};
  }
  std::byte* mirror() const { return mirror_.get(); }
  const std::byte* before() const {
    return reinterpret_cast<const std::byte*>(before_.data.data());
  }

  // Whole blocks, and some of which only the first tokens are there; no two to the same place.
  Shared<KvCopyBlock> some_blocks(bool whole) {
    std::vector<KvCopyBlock> blocks;
    for (uint32_t i = 0; i < 9; ++i) {
      const uint32_t tokens = whole || i % 3 != 2 ? layout_.block_tokens : 1 + i;
      blocks.push_back({.from = (7 * i + 3) % kBlocks,
                        .to = whole ? (5 * i + 1) % kBlocks : (7 * i + 3) % kBlocks,
                        .position = i * 1000 * layout_.block_tokens,
                        .num_tokens = tokens});
    }
    return Shared<KvCopyBlock>(*this, blocks);
  }

  static constexpr size_t kPage = 4096;
  static size_t align(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  KvLayout layout_;
  size_t bytes_ = 0;
  MatrixH there_{0, 0}, before_{0, 0};  // what cache and mirror hold to begin with
  std::unique_ptr<std::byte[], Free> mirror_;
  device::Buffer memory_, lock_;
};

TEST_P(CudaKvCopy, ExportsALayerAndItsDigests) {
  const Shared<KvCopyBlock> blocks = some_blocks(false);
  const auto count = blocks.get().size();
  const Shared<uint64_t> digests(*this, std::vector<uint64_t>(count * layout_.num_layers()));
  for (uint32_t layer = 0; layer < layout_.num_layers(); ++layer) {
    fast_.export_kv(*stream_, {.kv = kv(layer),
                               .layer = layer,
                               .head_begin = layout_.head_begin,
                               .blocks = blocks.get(),
                               .mirror = mirror() + layer * layout_.layer_bytes(),
                               .digests = digests.get().data() + layer * count});
  }
  stream_->synchronize();
  const auto* source = reinterpret_cast<const std::byte*>(there_.data.data());
  std::vector<bool> touched(kBlocks);
  for (size_t i = 0; i < count; ++i) {
    const KvCopyBlock& b = blocks.get()[i];
    touched[b.to] = true;
    for (uint32_t layer = 0; layer < layout_.num_layers(); ++layer) {
      EXPECT_EQ(digests.get()[layer * count + i],
                kvcache::digest_layer(layout_, source + b.from * layout_.block_bytes(), layer,
                                      b.position, b.num_tokens))
          << "block " << i << " layer " << layer;
      for (uint32_t plane = 0; plane < 2; ++plane) {
        for (uint32_t head = 0; head < layout_.num_heads(); ++head) {
          const auto* from = source + layout_.offset(BlockId(b.from), layer, plane, head);
          const auto* to = mirror() + layout_.offset(BlockId(b.to), layer, plane, head);
          ASSERT_EQ(std::memcmp(from, to, b.num_tokens * layout_.vector_bytes()), 0)
              << "block " << i << " layer " << layer << " plane " << plane << " head " << head;
        }
      }
    }
  }
  for (uint32_t b = 0; b < kBlocks; ++b) {
    const size_t at = b * layout_.block_bytes();
    if (touched[b]) continue;
    EXPECT_EQ(std::memcmp(mirror() + at, before() + at, layout_.block_bytes()), 0)
        << "block " << b << " was not asked for";
  }
  EXPECT_EQ(download<uint16_t>(memory_.data(), bytes_ / 2), there_.data) << "the cache itself";
}

// To another cache on a device, and to nowhere: the digests are the same.
TEST_P(CudaKvCopy, ExportsToADeviceOrForItsDigests) {
  const Shared<KvCopyBlock> blocks = some_blocks(false);
  const auto count = blocks.get().size();
  const device::Buffer other = upload(std::span<const uint16_t>(before_.data));
  std::vector<std::vector<uint64_t>> all;
  for (const bool copies : {true, false}) {
    const Shared<uint64_t> digests(*this, std::vector<uint64_t>(count * layout_.num_layers()));
    for (uint32_t layer = 0; layer < layout_.num_layers(); ++layer) {
      fast_.export_kv(*stream_,
                      {.kv = kv(layer),
                       .layer = layer,
                       .head_begin = layout_.head_begin,
                       .blocks = blocks.get(),
                       .mirror = copies ? other.data() + layer * layout_.layer_bytes() : nullptr,
                       .to_device = copies,
                       .digests = digests.get().data() + layer * count});
    }
    stream_->synchronize();
    all.emplace_back(digests.get().begin(), digests.get().end());
  }
  EXPECT_EQ(all[0], all[1]);
  const auto* source = reinterpret_cast<const std::byte*>(there_.data.data());
  std::vector<uint16_t> expected = before_.data;
  auto* written = reinterpret_cast<std::byte*>(expected.data());
  for (size_t i = 0; i < count; ++i) {
    const KvCopyBlock& b = blocks.get()[i];
    for (uint32_t layer = 0; layer < layout_.num_layers(); ++layer) {
      EXPECT_EQ(all[0][layer * count + i],
                kvcache::digest_layer(layout_, source + b.from * layout_.block_bytes(), layer,
                                      b.position, b.num_tokens));
      for (uint32_t plane = 0; plane < 2; ++plane) {
        for (uint32_t head = 0; head < layout_.num_heads(); ++head) {
          std::memcpy(written + layout_.offset(BlockId(b.to), layer, plane, head),
                      source + layout_.offset(BlockId(b.from), layer, plane, head),
                      b.num_tokens * layout_.vector_bytes());
        }
      }
    }
  }
  EXPECT_EQ(download<uint16_t>(other.data(), bytes_ / 2), expected);
  EXPECT_EQ(download<uint16_t>(memory_.data(), bytes_ / 2), there_.data) << "the cache itself";
}

TEST_P(CudaKvCopy, ImportsWholeBlocks) {
  const Shared<KvCopyBlock> blocks = some_blocks(true);
  fast_.import_kv(*stream_, {.kv = kv(0),
                             .block_bytes = layout_.block_bytes(),
                             .blocks = blocks.get(),
                             .mirror = mirror()});
  std::vector<uint16_t> expected = there_.data;
  const size_t elements = layout_.block_bytes() / 2;
  for (const KvCopyBlock& b : blocks.get()) {
    std::copy_n(before_.data.begin() + static_cast<ptrdiff_t>(b.from * elements), elements,
                expected.begin() + static_cast<ptrdiff_t>(b.to * elements));
  }
  const auto got = download<uint16_t>(memory_.data(), bytes_ / 2);
  for (uint32_t b = 0; b < kBlocks; ++b) {
    ASSERT_EQ(std::memcmp(got.data() + b * elements, expected.data() + b * elements,
                          layout_.block_bytes()),
              0)
        << "block " << b;
  }
  EXPECT_EQ(std::memcmp(mirror(), before(), bytes_), 0) << "the mirror";
}

// A rank's part of what all share: the mirror's blocks lie further apart than the cache's.
TEST_P(CudaKvCopy, TheMirrorsBlocksMayStandApart) {
  constexpr uint32_t kFew = kBlocks / 2;  // the mirror has as many, two apart
  const size_t stride = 2 * layout_.block_bytes();
  std::vector<KvCopyBlock> all;
  for (uint32_t b = 0; b < kFew; ++b) all.push_back({b, b, 0, layout_.block_tokens});
  const Shared<KvCopyBlock> blocks(*this, all);
  const Shared<uint64_t> digests(*this, std::vector<uint64_t>(kFew));
  const uint32_t last = layout_.num_layers() - 1;
  fast_.export_kv(*stream_, {.kv = kv(last),
                             .layer = last,
                             .head_begin = layout_.head_begin,
                             .blocks = blocks.get(),
                             .mirror = mirror() + last * layout_.layer_bytes(),
                             .mirror_stride = stride,
                             .digests = digests.get().data()});
  stream_->synchronize();
  const auto* source = reinterpret_cast<const std::byte*>(there_.data.data());
  for (uint32_t b = 0; b < kFew; ++b) {
    const size_t at = last * layout_.layer_bytes();
    EXPECT_EQ(std::memcmp(mirror() + b * stride + at, source + b * layout_.block_bytes() + at,
                          layout_.layer_bytes()),
              0)
        << "block " << b;
    EXPECT_EQ(std::memcmp(mirror() + b * stride + layout_.block_bytes(),
                          before() + b * stride + layout_.block_bytes(), layout_.block_bytes()),
              0)
        << "behind block " << b;
  }
  std::memcpy(mirror(), before(), bytes_);
  fast_.import_kv(*stream_, {.kv = kv(0),
                             .block_bytes = layout_.block_bytes(),
                             .blocks = blocks.get(),
                             .mirror = mirror(),
                             .mirror_stride = stride});
  const auto got = download<std::byte>(memory_.data(), bytes_);
  for (uint32_t b = 0; b < kFew; ++b) {
    EXPECT_EQ(std::memcmp(got.data() + b * layout_.block_bytes(), before() + b * stride,
                          layout_.block_bytes()),
              0)
        << "block " << b;
  }
}

TEST_P(CudaKvCopy, NoBlocksAreNoWork) {
  fast_.export_kv(*stream_, {.kv = kv(0), .mirror = mirror()});
  fast_.import_kv(*stream_,
                  {.kv = kv(0), .block_bytes = layout_.block_bytes(), .mirror = mirror()});
  EXPECT_EQ(download<uint16_t>(memory_.data(), bytes_ / 2), there_.data);
}

INSTANTIATE_TEST_SUITE_P(Small, CudaKvCopy, testing::Values(Case{2, 2, 64, 16, 0}));
INSTANTIATE_TEST_SUITE_P(Models, CudaKvCopy,
                         testing::Values(Case{3, 8, 128, 16, 0}, Case{2, 1, 128, 64, 5},
                                         Case{2, 3, 64, 32, 0}, Case{2, 4, 80, 16, 0},
                                         Case{2, 2, 32, 256, 2}, Case{1, 1, 256, 16, 0},
                                         Case{2, 2, 16, 16, 1}, Case{1, 1, 512, 16, 0}));

}  // namespace
}  // namespace baton::ops
