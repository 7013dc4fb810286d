#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/base/ids.h"
#include "common/kvcache/prefix.h"

namespace baton::kvcache {

// Hash of a block's content -> the block that holds it. A table of fixed size with linear probing:
// O(1), and nothing is allocated after construction.
class PrefixIndex {
 public:
  explicit PrefixIndex(uint32_t max_entries);

  std::optional<BlockId> find(const PrefixHash& hash) const;
  // It will be asked for soon: memory is waited for once for all that are said so together.
  void prefetch(const PrefixHash& hash) const { __builtin_prefetch(&entries_[home(hash)]); }
  void insert(const PrefixHash& hash, BlockId block);  // not yet there
  void erase(const PrefixHash& hash);                  // there
  uint32_t size() const { return size_; }

 private:
  static constexpr uint32_t kEmpty = UINT32_MAX;
  struct Entry {
    PrefixHash hash;
    uint32_t block = kEmpty;
  };

  size_t home(const PrefixHash& hash) const { return std::hash<PrefixHash>{}(hash)&mask_; }
  size_t slot_of(const PrefixHash& hash) const;  // where it is, or the empty entry where it goes

  size_t mask_;
  uint32_t size_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace baton::kvcache
