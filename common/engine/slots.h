#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"

namespace baton::engine {

// The sampler slots of one worker, handed out to both of its schedulers. A slot may be given back
// while steps that use it are in flight: the next one to open it does so in a later step. Used by
// one thread; allocates nothing after construction.
class SlotAllocator {
 public:
  explicit SlotAllocator(uint32_t max_slots) : max_slots_(max_slots) {
    free_.reserve(max_slots);
    for (uint32_t i = max_slots; i-- > 0;) free_.push_back(SlotId{i});
  }

  // Appends n slots to `out`, or changes nothing and returns false.
  bool allocate(uint32_t n, std::vector<SlotId>& out) {
    if (n > free_.size()) return false;
    out.insert(out.end(), free_.end() - n, free_.end());
    free_.resize(free_.size() - n);
    return true;
  }
  void release(SlotId slot) { free_.push_back(slot); }
  void release(std::span<const SlotId> slots) {
    free_.insert(free_.end(), slots.begin(), slots.end());
  }
  uint32_t available() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t size() const { return max_slots_; }

 private:
  uint32_t max_slots_;
  std::vector<SlotId> free_;
};

}  // namespace baton::engine
