#include "tests/fakes/fake_devices.h"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/base/descriptor.h"
#include "common/kvcache/digest.h"

namespace baton::kvtransfer {
namespace {

void must(bool ok, const char* otherwise) {
  if (ok) return;
  std::fprintf(stderr, "fake device reads: %s\n", otherwise);
  std::abort();
}

}  // namespace

class FakeDeviceReads final : public DeviceReads {
 public:
  FakeDeviceReads(FakeDevices& devices, const kvcache::KvLayout& layout, DeviceRegion region,
                  std::span<std::byte> memory)
      : devices_(devices), layout_(layout), region_(std::move(region)), memory_(memory) {}
  ~FakeDeviceReads() override {
    std::erase_if(devices_.pending_, [this](const auto& p) { return p.second.reader == this; });
    devices_.mappings_ -= maps_.size();
  }

  const DeviceRegion& region() const override { return region_; }
  result<DeviceMapId> map(const DeviceRegion& theirs, std::string_view name) override;
  void unmap(DeviceMapId id) override;
  status start(DeviceMapId from, const DeviceRead& read) override;
  void poll(std::vector<DeviceReadEnd>& ends) override;
  int event_fd() const override { return wake_.get(); }
  bool arm() override { return ended_.empty(); }
  std::string_view name() const override { return "fake_ipc"; }

  void finish(uint64_t number);

 private:
  struct Map {
    std::span<const std::byte> memory;
    uint32_t reads = 0;
    bool closing = false;
  };
  struct Read {
    DeviceMapId from;
    DeviceRead what;
    std::vector<DeviceBlock> blocks;
  };
  uint64_t copy(const Read& read, std::span<const std::byte> source);
  void forget_if_done(std::map<DeviceMapId, Map>::iterator it);

  FakeDevices& devices_;
  const kvcache::KvLayout layout_;
  const DeviceRegion region_;
  const std::span<std::byte> memory_;
  std::map<DeviceMapId, Map> maps_;
  std::map<uint64_t, Read> reads_;
  std::vector<DeviceReadEnd> ended_;
  const Descriptor wake_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
};

result<DeviceMapId> FakeDeviceReads::map(const DeviceRegion& theirs, std::string_view name) {
  const auto found = devices_.memory_.find(theirs.gpu);
  if (devices_.faults_.fail_map || found == devices_.memory_.end() || theirs.key != theirs.gpu) {
    return error(Errc::kUnavailable,
                 fmt::format("{}: {} cannot read the memory of {}", name, region_.gpu, theirs.gpu));
  }
  must(theirs.bytes > 0 && theirs.bytes <= found->second.size(), "a region that there is not");
  const DeviceMapId id{devices_.next_++};
  maps_[id] = {std::span(found->second).first(theirs.bytes)};
  ++devices_.mappings_;
  return id;
}

void FakeDeviceReads::unmap(DeviceMapId id) {
  const auto it = maps_.find(id);
  must(it != maps_.end() && !it->second.closing, "unmapped twice");
  it->second.closing = true;
  forget_if_done(it);
}

void FakeDeviceReads::forget_if_done(std::map<DeviceMapId, Map>::iterator it) {
  if (!it->second.closing || it->second.reads > 0) return;
  maps_.erase(it);
  --devices_.mappings_;
}

status FakeDeviceReads::start(DeviceMapId from, const DeviceRead& read) {
  const auto it = maps_.find(from);
  must(it != maps_.end() && !it->second.closing, "a read of what is not mapped");
  must(read.layer_begin < read.layer_end && read.layer_end <= layout_.num_layers(), "its layers");
  must(!read.blocks.empty() &&
           read.blocks.size() * (read.layer_end - read.layer_begin) <= kMaxDeviceCells,
       "a read that is too large");
  must(reads_.size() + ended_.size() < kMaxDeviceReads, "too many reads at once");
  for (const DeviceBlock& block : read.blocks) {
    must(block.num_tokens > 0 && block.num_tokens <= layout_.block_tokens, "its tokens");
    must(layout_.offset(block.from, 0) + layout_.block_bytes() <= it->second.memory.size(),
         "a block that its owner has not");
    must(layout_.offset(block.to, 0) + layout_.block_bytes() <= memory_.size(),
         "a block that we have not");
  }
  ++it->second.reads;
  const uint64_t number = devices_.next_++;
  reads_[number] = {from, read, {read.blocks.begin(), read.blocks.end()}};
  devices_.most_at_once_ = std::max(devices_.most_at_once_, reads_.size());
  const TimePoint due = devices_.due();
  if (due <= devices_.now_) {
    finish(number);
  } else {
    devices_.pending_.emplace(due, FakeDevices::Pending{this, number});
  }
  return {};
}

// All planes and heads of the blocks' tokens, layer by layer.
uint64_t FakeDeviceReads::copy(const Read& read, std::span<const std::byte> source) {
  uint64_t digest = 0;
  for (const DeviceBlock& block : read.blocks) {
    for (uint32_t layer = read.what.layer_begin; layer < read.what.layer_end; ++layer) {
      for (uint32_t plane = 0; plane < layout_.num_planes(); ++plane) {
        for (uint32_t head = 0; head < layout_.num_heads(); ++head) {
          std::copy_n(source.data() + layout_.offset(block.from, layer, plane, head),
                      block.num_tokens * layout_.vector_bytes(),
                      memory_.data() + layout_.offset(block.to, layer, plane, head));
        }
      }
    }
  }
  if (devices_.chance(devices_.faults_.corrupt_read)) {
    const DeviceBlock& block = read.blocks[devices_.random_() % read.blocks.size()];
    memory_[layout_.offset(block.to, read.what.layer_begin)] ^= std::byte{4};
  }
  for (const DeviceBlock& block : read.blocks) {
    for (uint32_t layer = read.what.layer_begin; layer < read.what.layer_end; ++layer) {
      digest += kvcache::digest_layer(layout_, memory_.data() + layout_.offset(block.to, 0), layer,
                                      block.position, block.num_tokens);
    }
  }
  return digest;
}

void FakeDeviceReads::finish(uint64_t number) {
  const auto node = reads_.extract(number);
  const Read& read = node.mapped();
  const auto map = maps_.find(read.from);
  const uint64_t digest = copy(read, map->second.memory);
  if (devices_.chance(devices_.faults_.fail_read)) {
    ended_.push_back({read.what.cookie, error(Errc::kUnavailable, "the copy failed")});
  } else {
    ended_.push_back({read.what.cookie, digest});
  }
  --map->second.reads;
  forget_if_done(map);
  ::eventfd_write(wake_.get(), 1);
}

void FakeDeviceReads::poll(std::vector<DeviceReadEnd>& ends) {
  eventfd_t count = 0;
  ::eventfd_read(wake_.get(), &count);
  std::ranges::move(ended_, std::back_inserter(ends));
  ended_.clear();
}

std::unique_ptr<DeviceReads> FakeDevices::make_reads(const kvcache::KvLayout& layout,
                                                     uint32_t num_blocks, bool is_read) {
  const std::string gpu = fmt::format("GPU-{:06}", ++made_);
  std::vector<std::byte>& memory = memory_[gpu];
  memory.resize(num_blocks * layout.block_bytes());
  return std::make_unique<FakeDeviceReads>(
      *this, layout, DeviceRegion{gpu, is_read ? memory.size() : 0, is_read ? gpu : ""}, memory);
}

TimePoint FakeDevices::due() {
  const auto most = static_cast<uint64_t>(faults_.delay.count());
  return most == 0 ? now_ : now_ + Duration(static_cast<int64_t>(random_() % most + 1));
}

void FakeDevices::advance(TimePoint now) {
  while (!pending_.empty() && pending_.begin()->first <= now) {
    now_ = std::max(now_, pending_.begin()->first);
    const Pending next = pending_.begin()->second;
    pending_.erase(pending_.begin());
    next.reader->finish(next.number);
  }
  now_ = std::max(now_, now);
}

TimePoint FakeDevices::next_event() const {
  return pending_.empty() ? TimePoint::max() : pending_.begin()->first;
}

}  // namespace baton::kvtransfer
