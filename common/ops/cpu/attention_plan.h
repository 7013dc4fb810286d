#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/ops/ops.h"

namespace baton::ops {

// One thread's share of an attention: some rows of one sequence, the query heads of one KV head,
// some tiles. How the work is cut never shows in the result.
struct AttentionItem {
  uint32_t sequence;
  uint32_t kv_head;
  uint32_t row_begin, row_end;  // within the sequence's rows
  uint32_t tile_begin, tile_end;
  uint32_t tiles;       // that its rows see, those of other items included
  size_t first_record;  // where its rows' partials begin, if its tiles are split; else kWhole

  static constexpr size_t kWhole = SIZE_MAX;
  bool split() const { return first_record != kWhole; }
  uint64_t cost() const { return uint64_t{tile_end - tile_begin} * (row_end - row_begin + 16); }
};

// Cuts a batch into items, longest first. Row blocks keep a tile of K and V busy for many rows;
// where rows are few (decode), the tiles themselves are spread over the threads and their partials
// merged afterwards.
class AttentionPlan {
 public:
  AttentionPlan(const AttentionArgs& args, unsigned threads);

  size_t max_items() const { return max_items_; }
  // Fills `items`, room for max_items(); returns how many there are.
  size_t fill(AttentionItem* items);
  // Partial records (row, head, tile) that the split items need together. After fill().
  size_t num_records() const { return num_records_; }

  static uint32_t tiles_up_to(uint32_t position) { return position / kAttentionTile + 1; }

 private:
  uint32_t row_blocks(const SequenceRows& seq) const {
    return (seq.num_rows + block_rows_ - 1) / block_rows_;
  }
  size_t add(AttentionItem* items, size_t count, AttentionItem whole);

  const AttentionArgs& args_;
  uint32_t group_;       // query heads of a KV head
  uint32_t block_rows_;  // of an item
  uint32_t max_tiles_;   // of an item that may be split
  size_t max_items_ = 0;
  size_t num_records_ = 0;
};

}  // namespace baton::ops
