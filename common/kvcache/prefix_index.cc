#include "common/kvcache/prefix_index.h"

#include <cassert>

namespace baton::kvcache {

PrefixIndex::PrefixIndex(uint32_t max_entries)
    : mask_(std::bit_ceil(2 * size_t{max_entries} + 2) - 1), entries_(mask_ + 1) {}

size_t PrefixIndex::slot_of(const PrefixHash& hash) const {
  size_t slot = home(hash);
  while (entries_[slot].block != kEmpty && entries_[slot].hash != hash) slot = (slot + 1) & mask_;
  return slot;
}

std::optional<BlockId> PrefixIndex::find(const PrefixHash& hash) const {
  const Entry& entry = entries_[slot_of(hash)];
  if (entry.block == kEmpty) return std::nullopt;
  return BlockId{entry.block};
}

void PrefixIndex::insert(const PrefixHash& hash, BlockId block) {
  Entry& entry = entries_[slot_of(hash)];
  assert(entry.block == kEmpty);
  entry = {hash, block.value};
  ++size_;
}

void PrefixIndex::erase(const PrefixHash& hash) {
  size_t hole = slot_of(hash);
  assert(entries_[hole].block != kEmpty);
  // Moves later entries of the run into the hole, unless that would put one before its home.
  for (size_t slot = (hole + 1) & mask_; entries_[slot].block != kEmpty;
       slot = (slot + 1) & mask_) {
    const size_t distance_home = (slot - home(entries_[slot].hash)) & mask_;
    if (distance_home < ((slot - hole) & mask_)) continue;
    entries_[hole] = entries_[slot];
    hole = slot;
  }
  entries_[hole].block = kEmpty;
  --size_;
}

}  // namespace baton::kvcache
