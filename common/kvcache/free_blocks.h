#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/ids.h"

namespace baton::kvcache {

// A set of block ids that gives the lowest one: whoever takes several gets them in ascending order,
// and what a busy pool hands out gathers at its low end, so that tables are made of few runs. Bits
// of bits: O(1), and nothing is allocated after construction.
class FreeBlocks {
 public:
  // All ids below `size`.
  explicit FreeBlocks(uint32_t size) {
    size_t bits = size;
    for (std::vector<uint64_t>& level : levels_) {
      level.assign((bits + 63) / 64, 0);
      bits = level.size();
    }
    for (uint32_t i = 0; i < size; ++i) insert(BlockId{i});
  }

  uint32_t size() const { return size_; }
  bool contains(BlockId block) const {
    return (levels_[0][block.value / 64] >> block.value % 64 & 1) != 0;
  }
  void insert(BlockId block) {  // not yet there
    assert(!contains(block));
    size_t at = block.value;
    for (std::vector<uint64_t>& level : levels_) {
      level[at / 64] |= uint64_t{1} << at % 64;
      at /= 64;
    }
    ++size_;
  }
  BlockId take_lowest() {  // there is one
    assert(size_ > 0);
    size_t at = 0;
    while (levels_.back()[at] == 0) ++at;
    for (size_t i = levels_.size(); i-- > 0;) {
      at = at * 64 + static_cast<size_t>(std::countr_zero(levels_[i][at]));
    }
    const BlockId lowest{static_cast<uint32_t>(at)};
    for (std::vector<uint64_t>& level : levels_) {
      level[at / 64] &= ~(uint64_t{1} << at % 64);
      at /= 64;
      if (level[at] != 0) break;  // the word is not empty: the levels above know nothing new
    }
    --size_;
    return lowest;
  }

 private:
  // [level][word]: a bit of level 0 is a block, one of level i + 1 a word of level i that is not 0.
  std::array<std::vector<uint64_t>, 3> levels_;
  uint32_t size_ = 0;
};

}  // namespace baton::kvcache
