#include "common/kvcache/block_pool.h"

#include <algorithm>
#include <cassert>

namespace baton::kvcache {
namespace {

constexpr uint32_t kAhead = 16;  // blocks whose places in the index are fetched before their turn

}  // namespace

BlockPool::BlockPool(uint32_t num_blocks)
    : blocks_(num_blocks), free_(num_blocks), index_(num_blocks) {
  counts_.free = num_blocks;
}

uint32_t& BlockPool::count(BlockState state) {
  switch (state) {
    case BlockState::kFree:
      return counts_.free;
    case BlockState::kActive:
      return counts_.active;
    case BlockState::kCached:
      return counts_.cached;
    case BlockState::kQuarantined:
      break;
  }
  return counts_.quarantined;
}

void BlockPool::move_to(Block& block, BlockState state) {
  --count(block.state);
  block.state = state;
  ++count(state);
}

bool BlockPool::allocate(uint32_t n, std::vector<BlockId>& out) {
  if (n > available()) return false;
  if (counts_.free < n) evict_oldest(n - counts_.free);
  for (; n > 0; --n) out.push_back(take_free());
  return true;
}

BlockId BlockPool::take_free() {
  const BlockId id = free_.take_lowest();
  Block& block = at(id);
  move_to(block, BlockState::kActive);
  block.references = 1;
  ++block.generation.value;
  return id;
}

void BlockPool::evict_oldest(uint32_t count) {
  uint32_t next = oldest_;
  for (uint32_t i = 0; i < std::min(count, kAhead); ++i) {
    index_.prefetch(blocks_[next].hash);
    next = blocks_[next].newer;
  }
  for (; count > 0; --count) {
    if (next != kNone) {
      index_.prefetch(blocks_[next].hash);
      next = blocks_[next].newer;
    }
    const BlockId id{oldest_};
    unlink(id);
    make_free(id);
  }
}

void BlockPool::make_free(BlockId id) {
  Block& block = at(id);
  if (block.found) index_.erase(block.hash);
  block.hashed = block.found = false;
  move_to(block, BlockState::kFree);
  free_.insert(id);
}

void BlockPool::make_cached(BlockId id) {
  move_to(at(id), BlockState::kCached);
  link_newest(id);
}

void BlockPool::ref(BlockId id) {
  assert(at(id).state == BlockState::kActive);
  ++at(id).references;
}

void BlockPool::unref(BlockId id) {
  Block& block = at(id);
  assert(block.state == BlockState::kActive && block.references > 0);
  if (--block.references > 0) return;
  if (block.hashed) {
    settle_hashed(id);
  } else {
    make_free(id);
  }
}

// Of several blocks with equal content the index names one. Only that one is worth keeping; using
// any of them counts as using it, so that a chain's parents always outlive their children.
void BlockPool::settle_hashed(BlockId id) {
  Block& block = at(id);
  if (!block.found) {
    if (const std::optional<BlockId> twin = index_.find(block.hash)) {
      make_free(id);
      if (at(*twin).state == BlockState::kCached) {
        unlink(*twin);
        link_newest(*twin);
      }
      return;
    }
    index_.insert(block.hash, id);
    block.found = true;
  }
  make_cached(id);
}

void BlockPool::release(std::span<const BlockId> table) {
  for (size_t i = table.size(); i-- > 0;) unref(table[i]);
}

void BlockPool::register_hash(BlockId id, const PrefixHash& hash) {
  Block& block = at(id);
  assert(block.state == BlockState::kActive);
  assert(!block.hashed || block.hash == hash);
  if (block.hashed) return;
  block.hashed = true;
  block.hash = hash;
  if (index_.find(hash)) return;
  index_.insert(hash, id);
  block.found = true;
}

void BlockPool::register_hashes(std::span<const BlockId> blocks,
                                std::span<const PrefixHash> hashes) {
  for (const PrefixHash& hash : hashes.first(blocks.size())) index_.prefetch(hash);
  for (size_t i = 0; i < blocks.size(); ++i) register_hash(blocks[i], hashes[i]);
}

void BlockPool::forget(BlockId id) {
  Block& block = at(id);
  if (block.state == BlockState::kCached) {
    unlink(id);
    return make_free(id);
  }
  if (block.found) index_.erase(block.hash);
  block.hashed = block.found = false;
}

uint32_t BlockPool::match_prefix(std::span<const PrefixHash> hashes, std::vector<BlockId>& out) {
  uint32_t length = 0;
  for (const PrefixHash& hash : hashes) {
    const std::optional<BlockId> id = index_.find(hash);
    if (!id) break;
    Block& block = at(*id);
    if (block.state == BlockState::kCached) {
      unlink(*id);
      move_to(block, BlockState::kActive);
    }
    ++block.references;
    out.push_back(*id);
    ++length;
  }
  return length;
}

uint32_t BlockPool::peek_prefix(std::span<const PrefixHash> hashes) const {
  uint32_t length = 0;
  while (length < hashes.size() && index_.find(hashes[length])) ++length;
  return length;
}

void BlockPool::quarantine(BlockId id) {
  Block& block = at(id);
  assert(block.state == BlockState::kActive && block.references == 1 && !block.hashed);
  block.references = 0;
  move_to(block, BlockState::kQuarantined);
}

void BlockPool::release_quarantine(BlockId id) {
  assert(at(id).state == BlockState::kQuarantined);
  make_free(id);
}

void BlockPool::link_newest(BlockId id) {
  Block& block = at(id);
  block.older = newest_;
  block.newer = kNone;
  (newest_ == kNone ? oldest_ : blocks_[newest_].newer) = id.value;
  newest_ = id.value;
}

void BlockPool::unlink(BlockId id) {
  const Block& block = at(id);
  (block.older == kNone ? oldest_ : blocks_[block.older].newer) = block.newer;
  (block.newer == kNone ? newest_ : blocks_[block.newer].older) = block.older;
}

bool BlockPool::consistent() const {
  BlockCounts seen;
  uint32_t found = 0;
  for (uint32_t i = 0; i < size(); ++i) {
    const Block& block = blocks_[i];
    switch (block.state) {
      case BlockState::kFree:
        ++seen.free;
        break;
      case BlockState::kActive:
        ++seen.active;
        break;
      case BlockState::kCached:
        ++seen.cached;
        break;
      case BlockState::kQuarantined:
        ++seen.quarantined;
        break;
    }
    const bool active = block.state == BlockState::kActive;
    if ((block.references > 0) != active) return false;
    if (block.state == BlockState::kCached && !block.found) return false;
    if (block.hashed && !active && block.state != BlockState::kCached) return false;
    if (block.found && (!block.hashed || index_.find(block.hash) != BlockId{i})) return false;
    if (free_.contains(BlockId{i}) != (block.state == BlockState::kFree)) return false;
    found += block.found;
  }
  uint32_t linked = 0;
  for (uint32_t i = oldest_; i != kNone; i = blocks_[i].newer) {
    if (blocks_[i].state != BlockState::kCached || ++linked > size()) return false;
  }
  return seen == counts_ && seen.total() == size() && free_.size() == seen.free &&
         found == index_.size() && linked == seen.cached;
}

}  // namespace baton::kvcache
