#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/kvcache/free_blocks.h"
#include "common/kvcache/prefix.h"
#include "common/kvcache/prefix_index.h"

namespace baton::kvcache {

enum class BlockState : uint8_t {
  kFree,         // nobody's, content worthless
  kActive,       // in at least one table
  kCached,       // in no table, content found by its prefix hash; taken when room is needed
  kQuarantined,  // in no table, but somebody may still write into it; never handed out
};

struct BlockCounts {
  uint32_t free = 0, active = 0, cached = 0, quarantined = 0;
  uint32_t total() const { return free + active + cached + quarantined; }
  friend bool operator==(const BlockCounts&, const BlockCounts&) = default;
};

// Sole owner of block accounting for one cache: states, reference counts, generations, the prefix
// index. Knows no memory and no tokens. Used by one thread; every call is O(blocks it names) and
// allocates nothing (but for growth of a caller's vector). Wrong use (unref of a free block, ...)
// is a bug and asserts.
class BlockPool {
 public:
  explicit BlockPool(uint32_t num_blocks);

  // Appends n blocks to `out`, each active with one reference and a new generation; or changes
  // nothing and returns false. Takes free blocks first, then the least recently used cached ones;
  // of the free ones the lowest ids, in ascending order, so that tables are made of few runs.
  bool allocate(uint32_t n, std::vector<BlockId>& out);
  void ref(BlockId block);  // active
  // Gives back one reference. The last one leaves a block with a hash cached, any other free.
  void unref(BlockId block);
  // unref of a whole table, last block first, so that a chain is evicted from its leaf.
  void release(std::span<const BlockId> table);

  // Declares an active block to be full and to hold what `hash` names; from now on it can be found.
  // If another block is known for this hash, that one stays the one to be found, and this one takes
  // its place if it is gone. A table's blocks are registered from the first on.
  void register_hash(BlockId block, const PrefixHash& hash);
  // Several of a table at once, as register_hash() of one after the other.
  void register_hashes(std::span<const BlockId> blocks, std::span<const PrefixHash> hashes);
  // This block's content is in doubt: it is not found from now on, and free when last used.
  void forget(BlockId block);
  // Appends the longest run of blocks known for hashes[0], hashes[1], ... and takes a reference to
  // each. Returns its length.
  uint32_t match_prefix(std::span<const PrefixHash> hashes, std::vector<BlockId>& out);
  // The same length, taking nothing.
  uint32_t peek_prefix(std::span<const PrefixHash> hashes) const;

  // An active block with one reference and no hash leaves its table for quarantine ...
  void quarantine(BlockId block);
  // ... and is free once nothing can write into it any more.
  void release_quarantine(BlockId block);

  BlockCounts counts() const { return counts_; }
  uint32_t size() const { return static_cast<uint32_t>(blocks_.size()); }
  uint32_t available() const { return counts_.free + counts_.cached; }  // what allocate can give
  BlockState state(BlockId block) const { return blocks_[block.value].state; }
  uint32_t references(BlockId block) const { return blocks_[block.value].references; }
  // Grows each time the block is handed out for new content.
  Generation generation(BlockId block) const { return blocks_[block.value].generation; }

  // Recounts everything; O(size). For tests and debug builds.
  bool consistent() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Block {
    Generation generation;
    uint32_t references = 0;
    uint32_t older = kNone, newer = kNone;  // neighbours among the cached
    BlockState state = BlockState::kFree;
    bool hashed = false;
    bool found = false;  // the index names this block for its hash
    PrefixHash hash;
  };

  Block& at(BlockId block) { return blocks_[block.value]; }
  uint32_t& count(BlockState state);
  void move_to(Block& block, BlockState state);
  BlockId take_free();
  void evict_oldest(uint32_t count);
  void make_free(BlockId block);
  void make_cached(BlockId block);
  void settle_hashed(BlockId block);
  void link_newest(BlockId block);
  void unlink(BlockId block);

  std::vector<Block> blocks_;  // [BlockId]
  FreeBlocks free_;
  PrefixIndex index_;
  BlockCounts counts_;
  uint32_t oldest_ = kNone, newest_ = kNone;  // ends of the cached, by last use
};

}  // namespace baton::kvcache
