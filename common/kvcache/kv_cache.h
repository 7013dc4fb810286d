#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/kvcache/layout.h"

namespace baton::kvcache {

// How many whole blocks of a validated layout fit in `bytes`.
uint32_t blocks_that_fit(const KvLayout& layout, size_t bytes);

// The cache's memory seen through its layout: a view, cheap to copy. Whoever allocated the memory
// (a device, a transport) owns it and outlives this. Thread-safe: it never changes.
class KvCache {
 public:
  KvCache() = default;
  // kInvalidArgument if the layout is not valid or `memory` does not hold `num_blocks` of it.
  static result<KvCache> create(std::span<std::byte> memory, const KvLayout& layout,
                                uint32_t num_blocks);

  const KvLayout& layout() const { return layout_; }
  uint32_t num_blocks() const { return num_blocks_; }
  // Exactly num_blocks blocks; of a shard, to the end of the last block.
  std::span<std::byte> memory() const { return memory_; }

  // Address of a vector; layer_bytes (or head_bytes, ...) from here are contiguous.
  std::byte* at(BlockId block, uint32_t layer = 0, uint32_t plane = 0, uint32_t head = 0,
                uint32_t token = 0) const {
    return memory_.data() + layout_.offset(block, layer, plane, head, token);
  }
  std::span<std::byte> block(BlockId block) const {
    return memory_.subspan(layout_.offset(block, 0), layout_.block_bytes());
  }
  std::span<std::byte> layer(BlockId block, uint32_t layer) const {
    return memory_.subspan(layout_.offset(block, layer), layout_.layer_bytes());
  }
  // The part of one shard of the layout.
  KvCache shard(uint32_t i) const {
    const KvLayout shard = layout_.shard(i);
    const size_t bytes = (num_blocks_ - 1) * shard.block_stride() + shard.block_bytes();
    return KvCache(memory_.subspan(layout_.shard_offset(i), bytes), shard, num_blocks_);
  }

 private:
  KvCache(std::span<std::byte> memory, const KvLayout& layout, uint32_t num_blocks)
      : memory_(memory), layout_(layout), num_blocks_(num_blocks) {}

  std::span<std::byte> memory_;
  KvLayout layout_;
  uint32_t num_blocks_ = 0;
};

}  // namespace baton::kvcache
