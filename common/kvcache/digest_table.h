#pragma once

#include <cassert>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"

namespace baton::kvcache {

// The digest of each layer of each full block, kept beside the cache, so that a block found by its
// prefix can be announced without reading it again. Bound to the block's generation: what was
// noted for older content is never returned. Used by one thread; allocates nothing after
// construction.
class DigestTable {
 public:
  DigestTable(uint32_t num_blocks, uint32_t num_layers)
      : num_layers_(num_layers), notes_(num_blocks), digests_(size_t{num_blocks} * num_layers) {}

  // Each layer once, in any order.
  void set(BlockId block, Generation generation, uint32_t layer, uint64_t digest) {
    Note& note = notes_[block.value];
    if (note.generation != generation) note = {generation, 0};
    assert(note.layers < num_layers_);
    ++note.layers;
    digests_[index(block, layer)] = digest;
  }
  // Whether all layers of this content are known.
  bool complete(BlockId block, Generation generation) const {
    const Note& note = notes_[block.value];
    return note.generation == generation && note.layers == num_layers_;
  }
  std::span<const uint64_t> layers(BlockId block) const {  // [num_layers]
    return std::span(digests_).subspan(index(block, 0), num_layers_);
  }
  uint32_t num_layers() const { return num_layers_; }

 private:
  struct Note {
    Generation generation;
    uint32_t layers = 0;  // how many are set
  };
  size_t index(BlockId block, uint32_t layer) const {
    return size_t{block.value} * num_layers_ + layer;
  }

  uint32_t num_layers_;
  std::vector<Note> notes_;        // [block]
  std::vector<uint64_t> digests_;  // [block][layer]
};

}  // namespace baton::kvcache
