#include "common/ops/cpu/attention_plan.h"

namespace baton::ops {
namespace {

constexpr uint32_t kBlockQueries = 192;    // query vectors that share an expanded K tile
constexpr uint32_t kMaxSplitQueries = 32;  // beyond, row blocks are parallelism enough
constexpr unsigned kItemsPerThread = 4;

}  // namespace

AttentionPlan::AttentionPlan(const AttentionArgs& args, unsigned threads)
    : args_(args), group_(args.num_heads / args.kv.num_kv_heads) {
  block_rows_ = std::max(kBlockQueries / group_, 1u);
  size_t blocks = 0, tiles = 0;
  for (const SequenceRows& seq : args.sequences.host) {
    if (seq.num_rows == 0) continue;
    const size_t of_sequence = size_t{args.kv.num_kv_heads} * row_blocks(seq);
    blocks += of_sequence;
    tiles += of_sequence * tiles_up_to(seq.position + seq.num_rows - 1);
  }
  const size_t per_item = tiles / (size_t{kItemsPerThread} * threads);
  max_tiles_ = threads == 1 ? UINT32_MAX : static_cast<uint32_t>(std::max<size_t>(per_item, 1));
  max_items_ = blocks + tiles / max_tiles_;
}

size_t AttentionPlan::fill(AttentionItem* items) {
  size_t count = 0;
  num_records_ = 0;
  for (uint32_t s = 0; s < args_.sequences.host.size(); ++s) {
    const SequenceRows& seq = args_.sequences.host[s];
    for (uint32_t b = 0; b < row_blocks(seq); ++b) {
      const uint32_t begin = b * block_rows_;
      const uint32_t end = std::min(begin + block_rows_, seq.num_rows);
      const uint32_t tiles = tiles_up_to(seq.position + end - 1);
      for (uint32_t h = 0; h < args_.kv.num_kv_heads; ++h) {
        count = add(items, count,
                    {.sequence = s,
                     .kv_head = h,
                     .row_begin = begin,
                     .row_end = end,
                     .tile_begin = 0,
                     .tile_end = tiles,
                     .tiles = tiles,
                     .first_record = AttentionItem::kWhole});
      }
    }
  }
  std::sort(items, items + count,
            [](const AttentionItem& a, const AttentionItem& b) { return a.cost() > b.cost(); });
  return count;
}

// Appends `whole`, or its parts where its tiles are to be spread over threads.
size_t AttentionPlan::add(AttentionItem* items, size_t count, AttentionItem whole) {
  const uint32_t tiles = whole.tiles;
  const uint32_t queries = (whole.row_end - whole.row_begin) * group_;
  if (tiles <= max_tiles_ || queries > kMaxSplitQueries) {
    items[count] = whole;
    return count + 1;
  }
  AttentionItem part = whole;
  part.first_record = num_records_;
  for (uint32_t t = 0; t < tiles; t += max_tiles_) {
    part.tile_begin = t;
    part.tile_end = std::min(t + max_tiles_, tiles);
    items[count++] = part;
  }
  num_records_ += size_t{queries} * tiles;
  return count;
}

}  // namespace baton::ops
