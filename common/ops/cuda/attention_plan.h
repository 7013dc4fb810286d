#pragma once

#include <cstdint>
#include <span>

#include "common/ops/ops.h"

// How attention's kernels are launched: arithmetic on what the host knows of a batch.
//
// A query vector is one row's one head. The query vectors of a sequence that share a KV head are
// counted row by row: vector v is of row v / group and of head v % group of the group.
namespace baton::ops {

inline constexpr uint32_t kGroupTiles = 4;    // tiles that are merged before their group is
inline constexpr uint32_t kTileQueries = 16;  // query vectors of a block of the tile kernel
inline constexpr uint32_t kRowQueries = 64;   // and of the row kernel
// Sequences of up to so many rows are the tile kernel's: it spreads their tokens over the GPU, at
// the price of records in memory.
inline constexpr uint32_t kTileKernelRows = 16;
// From so many rows on a chunk is worth a tensor copy's set-up.
inline constexpr uint32_t kLongChunkRows = 64;

// A launch of the tile kernel. A block has one KV head and up to kTileQueries vectors of a
// sequence, and of its records every group_splits-th or tile_splits-th. A record is a whole group's
// in the first num_grouped sequences, and a tile's in the others: these are small pieces for the
// multiprocessors that run out of large ones.
struct TilePlan {
  uint32_t query_tiles = 0;  // of a sequence, at most; 0: there is nothing to do
  uint32_t num_grouped = 0;
  uint32_t group_splits = 0;
  uint32_t tile_splits = 0;
  uint32_t tiles = 0;      // of a sequence, at most
  uint32_t max_rows = 0;   // of a sequence that takes part
  uint32_t first_row = 0;  // of the batch: rows [first_row, first_row + num_rows) hold all that
  uint32_t num_rows = 0;   // take part
  bool merges = false;     // some sequence may have several records
};

// For the sequences of at most max_rows rows. A batch where none has more than one row may be
// captured: it is planned for all that it may be launched with again, one row in each sequence and
// args.sequences.max_tokens tokens.
TilePlan plan_tiles(const AttentionArgs& args, uint32_t max_rows, uint32_t multiprocessors);

// So many blocks share the records of a sequence and KV head, where `pairs` of the two may each
// have up to so many records of record_tiles each: enough blocks that the last ones to finish do
// not show, few enough that empty ones do not either.
uint32_t record_splits(uint32_t records, uint32_t record_tiles, uint64_t pairs,
                       uint32_t multiprocessors);

// What a block of the row kernel does, for one KV head.
struct RowItem {
  uint32_t sequence = 0;
  uint32_t first_query = 0;
};

// The sequences of [min_rows, max_rows] rows in items of kRowQueries vectors.
uint32_t count_row_items(const AttentionArgs& args, uint32_t min_rows, uint32_t max_rows);
// Fills `items`, of that count; those with most tokens to see come first.
void fill_row_items(const AttentionArgs& args, uint32_t min_rows, uint32_t max_rows,
                    std::span<RowItem> items);

}  // namespace baton::ops
