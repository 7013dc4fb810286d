#include "common/ops/cuda/attention_plan.h"

#include <algorithm>
#include <cassert>

namespace baton::ops {
namespace {

constexpr uint32_t kBlocksPerMultiprocessor = 64;
// An own limit for the longest of many sequences: its blocks must not outlast all the others.
constexpr uint32_t kMaxTilesOfBlock = 16;
// Blocks that a multiprocessor runs at once, with heads of 128.
constexpr uint32_t kResidentBlocks = 3;
// Where all are busy so many times, it does not show that the last ones finish at different times.
constexpr uint32_t kManyWaves = 8;

uint32_t divide_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0 ? 1 : 0); }

uint32_t group_heads(const AttentionArgs& args) { return args.num_heads / args.kv.num_kv_heads; }

bool takes_part(const SequenceRows& s, uint32_t min_rows, uint32_t max_rows) {
  return s.num_rows >= min_rows && s.num_rows <= max_rows;
}

// Tokens that the last vector of an item sees.
uint32_t item_tokens(const AttentionArgs& args, const RowItem& item) {
  const SequenceRows& s = args.sequences.host[item.sequence];
  const uint32_t group = group_heads(args);
  const uint32_t end = std::min(item.first_query + kRowQueries, s.num_rows * group);
  return s.position + (end - 1) / group + 1;
}

// Of `count` sequences, how many to do in whole groups. As many as keep all multiprocessors busy
// once are left in tiles, which level out when the blocks with groups finish.
uint32_t grouped_sequences(uint64_t count, uint64_t sequence_groups, uint32_t groups,
                           uint32_t multiprocessors) {
  const uint64_t wave = uint64_t{kResidentBlocks} * multiprocessors;
  // Then nothing at all needs to be merged.
  if (groups == 1 && count * sequence_groups >= kManyWaves * wave) {
    return static_cast<uint32_t>(count);
  }
  const uint64_t in_tiles = (wave + sequence_groups - 1) / sequence_groups;
  return static_cast<uint32_t>(count - std::min(count, in_tiles));
}

}  // namespace

TilePlan plan_tiles(const AttentionArgs& args, uint32_t max_rows, uint32_t multiprocessors) {
  const auto sequences = args.sequences.host;
  uint32_t rows = 0, tokens = 0, begin = UINT32_MAX, end = 0;
  bool decode = true;
  for (const SequenceRows& s : sequences) {
    decode = decode && s.num_rows <= 1;
    if (!takes_part(s, 1, max_rows)) continue;
    rows = std::max(rows, s.num_rows);
    tokens = std::max(tokens, s.position + s.num_rows);
    begin = std::min(begin, s.first_row);
    end = std::max(end, s.first_row + s.num_rows);
  }
  if (decode) {  // it may be recorded, and launched again with all rows taken
    rows = sequences.empty() ? 0 : std::max(rows, 1u);
    tokens = std::max(tokens, args.sequences.max_tokens);
    begin = 0;
    end = static_cast<uint32_t>(args.q.rows);
  }
  if (rows == 0 || tokens == 0 || begin >= end) return {};
  TilePlan plan;
  plan.query_tiles = divide_up(rows * group_heads(args), kTileQueries);
  plan.tiles = divide_up(tokens, kAttentionTile);
  const uint32_t groups = divide_up(plan.tiles, kGroupTiles), kv_heads = args.kv.num_kv_heads;
  if (plan.tiles > 1) {
    plan.num_grouped = grouped_sequences(
        sequences.size(), uint64_t{kv_heads} * plan.query_tiles * groups, groups, multiprocessors);
  }
  const uint64_t in_tiles = sequences.size() - plan.num_grouped;
  plan.group_splits =
      record_splits(groups, kGroupTiles, uint64_t{plan.num_grouped} * kv_heads, multiprocessors);
  plan.tile_splits = record_splits(plan.tiles, 1, in_tiles * kv_heads, multiprocessors);
  plan.merges = groups > 1 || (in_tiles > 0 && plan.tiles > 1);
  plan.max_rows = rows;
  plan.first_row = begin;
  plan.num_rows = end - begin;
  return plan;
}

uint32_t record_splits(uint32_t records, uint32_t record_tiles, uint64_t pairs,
                       uint32_t multiprocessors) {
  if (records == 0 || pairs == 0) return 0;
  const uint64_t blocks = uint64_t{kBlocksPerMultiprocessor} * multiprocessors;
  const uint64_t wanted = std::clamp<uint64_t>((blocks + pairs - 1) / pairs, 1, records);
  const uint32_t of_block =
      std::min(divide_up(records, static_cast<uint32_t>(wanted)), kMaxTilesOfBlock / record_tiles);
  return divide_up(records, of_block);
}

uint32_t count_row_items(const AttentionArgs& args, uint32_t min_rows, uint32_t max_rows) {
  uint32_t count = 0;
  for (const SequenceRows& s : args.sequences.host) {
    if (takes_part(s, min_rows, max_rows)) {
      count += divide_up(s.num_rows * group_heads(args), kRowQueries);
    }
  }
  return count;
}

void fill_row_items(const AttentionArgs& args, uint32_t min_rows, uint32_t max_rows,
                    std::span<RowItem> items) {
  size_t count = 0;
  for (uint32_t i = 0; i < args.sequences.host.size(); ++i) {
    const SequenceRows& s = args.sequences.host[i];
    if (!takes_part(s, min_rows, max_rows)) continue;
    for (uint32_t q = 0; q < s.num_rows * group_heads(args); q += kRowQueries) {
      items[count++] = {i, q};
    }
  }
  assert(count == items.size());
  std::sort(items.begin(), items.end(), [&](const RowItem& a, const RowItem& b) {
    return item_tokens(args, a) > item_tokens(args, b);
  });
}

}  // namespace baton::ops
