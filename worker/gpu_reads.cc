#include "worker/gpu_reads.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "common/base/descriptor.h"
#include "common/model/model.h"

namespace baton::worker {
namespace {

using kvtransfer::DeviceMapId;
using kvtransfer::DeviceRead;
using kvtransfer::DeviceReadEnd;
using kvtransfer::DeviceRegion;
using kvtransfer::kMaxDeviceCells;
using kvtransfer::kMaxDeviceReads;

class GpuReads final : public kvtransfer::DeviceReads {
 public:
  GpuReads(const GpuReadsConfig& config, std::unique_ptr<device::MemorySharing> sharing)
      : cache_(config.cache),
        ops_(config.ops),
        sharing_(std::move(sharing)),
        stream_(config.device.make_stream()) {}
  // Before what it reads from, and into, goes.
  ~GpuReads() override { stream_->synchronize(); }

  status prepare(const GpuReadsConfig& config);

  const DeviceRegion& region() const override { return region_; }
  result<DeviceMapId> map(const DeviceRegion& theirs, std::string_view name) override;
  void unmap(DeviceMapId id) override;
  status start(DeviceMapId from, const DeviceRead& read) override;
  void poll(std::vector<DeviceReadEnd>& ends) override;
  int event_fd() const override { return wake_.get(); }
  bool arm() override { return num_running_ == 0 || !oldest().done->done(); }
  std::string_view name() const override { return "cuda_ipc"; }

 private:
  struct Peer {
    device::Buffer memory;
    kvcache::KvCache cache;
    uint32_t reads = 0;  // under way
    bool closing = false;
  };
  struct Running {
    uint64_t cookie = 0;
    DeviceMapId from;
    size_t cells = 0;
    std::span<ops::KvCopyBlock> blocks;  // [kMaxDeviceCells]
    std::span<uint64_t> digests;         // [kMaxDeviceCells], layer by layer
    std::unique_ptr<device::Event> done;
  };
  const Running& oldest() const { return running_[first_]; }
  void forget_if_done(std::map<DeviceMapId, Peer>::iterator it);

  const kvcache::KvCache cache_;
  const ops::Ops& ops_;
  const std::unique_ptr<device::MemorySharing> sharing_;
  DeviceRegion region_;
  const Descriptor wake_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  std::map<DeviceMapId, Peer> peers_;
  uint64_t next_peer_ = 1;
  device::Buffer lists_;                          // what the spans are of
  std::array<Running, kMaxDeviceReads> running_;  // a ring: the stream ends them in order
  uint32_t first_ = 0, num_running_ = 0;
  const std::unique_ptr<device::Stream> stream_;  // ends first
};

status GpuReads::prepare(const GpuReadsConfig& config) {
  if (wake_.get() < 0) return error(Errc::kIo, std::string("eventfd: ") + std::strerror(errno));
  region_.gpu = sharing_->device();
  if (config.is_read) {
    BATON_TRY(const device::SharedMemory shared, sharing_->share(config.memory));
    region_.bytes = cache_.memory().size();
    region_.key = shared.key;
  }
  const size_t bytes = kMaxDeviceCells * (sizeof(ops::KvCopyBlock) + sizeof(uint64_t));
  BATON_TRY(lists_, config.device.allocate_host(kMaxDeviceReads * bytes));
  std::byte* next = lists_.data();
  for (Running& r : running_) {
    r.digests = {reinterpret_cast<uint64_t*>(next), kMaxDeviceCells};
    r.blocks = {reinterpret_cast<ops::KvCopyBlock*>(next + r.digests.size_bytes()),
                kMaxDeviceCells};
    r.done = stream_->make_event();
    next += bytes;
  }
  return {};
}

result<DeviceMapId> GpuReads::map(const DeviceRegion& theirs, std::string_view name) {
  auto memory = sharing_->map({theirs.gpu, theirs.bytes, theirs.key});
  if (!memory) {
    return error(memory.error().code, fmt::format("{} cannot be read in its GPU's memory: {}", name,
                                                  memory.error().message));
  }
  const auto blocks = kvcache::blocks_that_fit(cache_.layout(), theirs.bytes);
  BATON_TRY(const auto cache,
            kvcache::KvCache::create({memory->data(), theirs.bytes}, cache_.layout(), blocks));
  const DeviceMapId id{next_peer_++};
  peers_.emplace(id, Peer{std::move(*memory), cache});
  return id;
}

void GpuReads::unmap(DeviceMapId id) {
  const auto it = peers_.find(id);
  assert(it != peers_.end());
  it->second.closing = true;
  forget_if_done(it);
}

void GpuReads::forget_if_done(std::map<DeviceMapId, Peer>::iterator it) {
  if (it->second.closing && it->second.reads == 0) peers_.erase(it);
}

status GpuReads::start(DeviceMapId from, const DeviceRead& read) {
  const uint32_t layers = read.layer_end - read.layer_begin;
  assert(num_running_ < kMaxDeviceReads && layers * read.blocks.size() <= kMaxDeviceCells);
  Peer& peer = peers_.at(from);
  for (const kvtransfer::DeviceBlock& block : read.blocks) {
    if (block.from.value < peer.cache.num_blocks()) continue;
    return error(Errc::kInvalidArgument,
                 fmt::format("read: block {} of {}", block.from.value, peer.cache.num_blocks()));
  }
  Running& r = running_[(first_ + num_running_) % kMaxDeviceReads];
  r.cookie = read.cookie;
  r.from = from;
  r.cells = layers * read.blocks.size();
  const auto blocks = r.blocks.first(read.blocks.size());
  std::ranges::transform(read.blocks, blocks.begin(), [](const kvtransfer::DeviceBlock& b) {
    return ops::KvCopyBlock{b.from.value, b.to.value, b.position, b.num_tokens};
  });
  for (uint32_t i = 0; i < layers; ++i) {
    const uint32_t layer = read.layer_begin + i;
    ops_.export_kv(*stream_, {.kv = model::paged_kv(peer.cache, layer),
                              .layer = layer,
                              .head_begin = cache_.layout().head_begin,
                              .blocks = blocks,
                              .mirror = cache_.at(BlockId{0}, layer),
                              .to_device = true,
                              .digests = r.digests.data() + i * blocks.size()});
  }
  stream_->record(*r.done);
  stream_->notify([fd = wake_.get()] { ::eventfd_write(fd, 1); });
  ++peer.reads;
  ++num_running_;
  return {};
}

void GpuReads::poll(std::vector<DeviceReadEnd>& ends) {
  eventfd_t count = 0;
  ::eventfd_read(wake_.get(), &count);
  while (num_running_ > 0 && oldest().done->done()) {
    const Running& r = oldest();
    const auto digests = r.digests.first(r.cells);
    ends.push_back({r.cookie, std::accumulate(digests.begin(), digests.end(), uint64_t{0})});
    const auto peer = peers_.find(r.from);
    --peer->second.reads;
    forget_if_done(peer);
    first_ = (first_ + 1) % kMaxDeviceReads;
    --num_running_;
  }
}

}  // namespace

result<std::unique_ptr<kvtransfer::DeviceReads>> make_gpu_reads(
    const GpuReadsConfig& config, std::unique_ptr<device::MemorySharing> sharing) {
  auto reads = std::make_unique<GpuReads>(config, std::move(sharing));
  BATON_CHECK_OK(reads->prepare(config));
  return std::unique_ptr<kvtransfer::DeviceReads>(std::move(reads));
}

}  // namespace baton::worker
