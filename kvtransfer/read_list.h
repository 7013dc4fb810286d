#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/plan.h"

namespace baton::kvtransfer {

// A part of an announce that is read and checked at once.
struct Read {
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t block_begin = 0, block_end = 0;  // indices in the sequence, in the source's blocks
  uint64_t digest = 0;                      // announced, summed over the part
  TimePoint announced;
  uint32_t attempt = 0;  // 1: read again

  uint64_t cells() const { return uint64_t{layer_end - layer_begin} * (block_end - block_begin); }
};

// What a hand-off still has to read. A cell is one layer of one of the source's blocks: announced
// once, read, checked. Pure.
class ReadList {
 public:
  ReadList() = default;
  // Cells of `num_layers` layers and the source's blocks [first_block, end_block).
  ReadList(uint32_t num_layers, uint32_t first_block, uint32_t end_block);

  // Takes what is new in an announce (whose ranges were checked); returns how many cells were.
  // kDataCorrupt if it names another block than an earlier one did for the same place.
  result<uint64_t> add(const Announce& announce, TimePoint now);
  // To be read once more, before anything else.
  void add_again(Read read);

  bool empty() const { return again_.empty() && unread_.empty(); }
  // Next part to read, of at most `max_cells` cells and `max_blocks` blocks, but at least a cell:
  // all that was announced at once of some blocks, or, if that is too much, some layers of one.
  std::optional<Read> next(uint64_t max_cells, uint64_t max_blocks = UINT64_MAX);
  void checked(const Read& read) { checked_cells_ += read.cells(); }

  bool all_announced() const { return announced_cells_ == total_cells(); }
  bool all_checked() const { return checked_cells_ == total_cells(); }
  // Ids of the source's blocks [begin, end), which have been announced.
  std::span<const BlockId> source_blocks(uint32_t begin, uint32_t end) const;
  uint32_t first_block() const { return first_block_; }
  uint32_t end_block() const { return end_block_; }

 private:
  // An announced rectangle and how far it has been cut into reads.
  struct Unread {
    uint32_t layer_begin = 0, layer_end = 0;
    uint32_t block_begin = 0, block_end = 0;
    uint32_t next_block = 0, next_layer = 0;
    std::vector<uint64_t> digests;  // [num_layers, num_blocks]
    TimePoint announced;
  };
  uint64_t total_cells() const { return uint64_t{num_layers_} * (end_block_ - first_block_); }
  size_t cell(uint32_t layer, uint32_t block) const {
    return size_t{layer} * (end_block_ - first_block_) + (block - first_block_);
  }
  void add_new(const Announce& announce, uint32_t layer_begin, uint32_t layer_end,
               uint32_t block_begin, uint32_t block_end, TimePoint now);

  uint32_t num_layers_ = 0, first_block_ = 0, end_block_ = 0;
  uint64_t announced_cells_ = 0, checked_cells_ = 0;
  std::vector<bool> announced_;  // [layer][block]
  std::vector<BlockId> blocks_;  // [block]
  std::vector<bool> known_;      // [block] blocks_ is set
  std::deque<Unread> unread_;
  std::deque<Read> again_;
};

}  // namespace baton::kvtransfer
