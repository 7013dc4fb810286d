#include "common/ops/cuda/attention.h"

#include <algorithm>
#include <cassert>

#include "common/ops/cuda/attention_launch.h"
#include "common/ops/cuda/attention_wgmma.h"
#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/kernel.cuh"

// Sequences are divided by their number of rows: up to kTileKernelRows are the tile kernel's, whose
// records merge_tiles() merges, more are the row kernel's. Both give a vector the same bits: tiles
// of 256 tokens, merged in their order within groups of 4, and the groups in theirs
// (attention_mma.cuh). A block of the tile kernel may so do a whole group and write one record
// instead of four, as most do in large batches, and no result depends on which do. Where the same
// bits are not asked for, sequences of kLongChunkRows and more are wgmma_attention()'s if it takes
// them.
namespace baton::ops {
namespace {

void check(const AttentionArgs& args) {
  const PagedKv& kv = args.kv;
  assert(kv.dtype == args.q.dtype);
  assert(kv.block_tokens >= 16 && kAttentionTile % kv.block_tokens == 0);
  assert(args.num_heads % kv.num_kv_heads == 0);
  assert(args.q.cols == int64_t{args.num_heads} * kv.head_dim);
  assert(reinterpret_cast<uintptr_t>(kv.base) % 16 == 0);
  assert((kv.block_stride | kv.plane_stride | kv.head_stride | kv.token_stride) % 16 == 0);
  assert(args.sequences.host.size() < 65536);  // a grid's limits
  (void)kv;
}

// The sequences of up to kTileKernelRows rows.
void attend_few_rows(CudaStream& stream, const AttentionArgs& args) {
  const TilePlan plan = plan_tiles(args, kTileKernelRows, stream.info().multiprocessors);
  if (plan.query_tiles == 0) return;
  AttentionRecords records = {
      .row_stride = int64_t{args.num_heads} * plan.tiles * (args.kv.head_dim + 2),
      .first_row = plan.first_row,
      .num_tiles = plan.tiles,
      .num_grouped = plan.num_grouped};
  if (plan.merges) {
    const size_t bytes = plan.num_rows * static_cast<size_t>(records.row_stride) * sizeof(float);
    records.data = reinterpret_cast<float*>(stream.scratch(CudaStream::Use::kAttention, bytes));
  }
  with_half(args.q.dtype,
            [&]<class T>() { attention::run_tiles<T>(stream, args, plan, records, true); });
  if (plan.merges) merge_tiles(stream, args, records, plan.max_rows);
}

// The sequences of [min_rows, max_rows] rows. They are not part of what is captured.
void attend_many_rows(CudaStream& stream, const AttentionArgs& args, uint32_t min_rows,
                      uint32_t max_rows) {
  const uint32_t count = count_row_items(args, min_rows, max_rows);
  if (count == 0) return;
  auto* const items = reinterpret_cast<RowItem*>(stream.stage(count * sizeof(RowItem)));
  fill_row_items(args, min_rows, max_rows, {items, count});
  with_half(args.q.dtype, [&]<class T>() { attention::run_rows<T>(stream, args, {items, count}); });
}

}  // namespace

void cuda_attention(Stream& base, const AttentionArgs& args) {
  check(args);
  CudaStream& stream = cuda_stream(base);
  attend_few_rows(stream, args);
  const bool has_long = std::ranges::any_of(
      args.sequences.host, [](const SequenceRows& s) { return s.num_rows >= kLongChunkRows; });
  if (has_long && wgmma_attention_fits(stream.info(), args)) {
    attend_many_rows(stream, args, kTileKernelRows + 1, kLongChunkRows - 1);
    wgmma_attention(stream, args, kLongChunkRows);
  } else {
    attend_many_rows(stream, args, kTileKernelRows + 1, UINT32_MAX);
  }
}

void cuda_attention_deterministic(Stream& base, const AttentionArgs& args) {
  check(args);
  CudaStream& stream = cuda_stream(base);
  attend_few_rows(stream, args);
  attend_many_rows(stream, args, kTileKernelRows + 1, UINT32_MAX);
}

void cuda_attention_partials(Stream& base, const AttentionArgs& args,
                             const AttentionPartials& partials) {
  check(args);
  if (partials.num_tiles == 0 || partials.records.rows == 0) return;
  CudaStream& stream = cuda_stream(base);
  TilePlan plan = plan_tiles(args, UINT32_MAX, stream.info().multiprocessors);
  if (plan.query_tiles == 0) return;
  plan.num_grouped = 0;
  plan.tile_splits =
      record_splits(partials.num_tiles, 1,
                    uint64_t{args.sequences.host.size()} * args.kv.num_kv_heads * plan.query_tiles,
                    stream.info().multiprocessors);
  const AttentionRecords records = {.data = partials.records.as<float>(),
                                    .row_stride = partials.records.row_stride,
                                    .first_tile = partials.first_tile,
                                    .num_tiles = partials.num_tiles};
  assert(partials.records.cols ==
         int64_t{args.num_heads} * partials.num_tiles * (args.kv.head_dim + 2));
  with_half(args.q.dtype,
            [&]<class T>() { attention::run_tiles<T>(stream, args, plan, records, false); });
}

}  // namespace baton::ops
