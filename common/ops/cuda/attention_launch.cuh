#pragma once

#include <bit>
#include <cassert>

#include "common/ops/cuda/attention_launch.h"
#include "common/ops/cuda/attention_rows.cuh"
#include "common/ops/cuda/attention_tiles.cuh"

// The bodies of attention_launch.h, for a file that instantiates them.
namespace baton::ops::attention {

// Calls attend.operator()<the smallest head_dim that kernels are made for and that holds this>().
template <class Attend>
void with_head_dim(uint32_t head_dim, const Attend& attend) {
  assert(head_dim % 16 == 0 && head_dim <= 512);
  if (head_dim <= 16) return attend.template operator()<16>();
  if (head_dim <= 32) return attend.template operator()<32>();
  if (head_dim <= 48) return attend.template operator()<48>();
  if (head_dim <= 64) return attend.template operator()<64>();
  if (head_dim <= 80) return attend.template operator()<80>();
  if (head_dim <= 96) return attend.template operator()<96>();
  if (head_dim <= 112) return attend.template operator()<112>();
  if (head_dim <= 128) return attend.template operator()<128>();
  if (head_dim <= 160) return attend.template operator()<160>();
  if (head_dim <= 192) return attend.template operator()<192>();
  if (head_dim <= 256) return attend.template operator()<256>();
  attend.template operator()<512>();
}

// Up to head_dim 256 what kernels need is there on any GPU from compute capability 8.0 on.
template <uint32_t kHeadDim, class Shared>
constexpr size_t shared_bytes() {
  static_assert(kHeadDim > 256 || sizeof(Shared) <= 99 * 1024);
  return sizeof(Shared);
}

template <class T>
void run_tiles(CudaStream& stream, const AttentionArgs& args, const TilePlan& plan,
               const AttentionRecords& records, bool merges) {
  const TileParams<T> p = {
      .q = args.q.as<T>(),
      .q_stride = args.q.row_stride,
      .out = merges ? args.out.as<T>() : nullptr,
      .out_stride = merges ? args.out.row_stride : 0,
      .kv = args.kv,
      .sequences = args.sequences.device,
      .records = records,
      .group = args.num_heads / args.kv.num_kv_heads,
      .block_shift = static_cast<uint32_t>(std::countr_zero(args.kv.block_tokens)),
      .max_rows = plan.max_rows,
      .query_tiles = plan.query_tiles,
      .group_splits = plan.group_splits,
      .tile_splits = plan.tile_splits,
      .scale_log2 = args.scale * kLog2E,
      .merges = merges};
  const uint64_t in_tiles = args.sequences.host.size() - plan.num_grouped;
  const uint64_t blocks =
      (uint64_t{plan.num_grouped} * plan.group_splits + in_tiles * plan.tile_splits) *
      plan.query_tiles * args.kv.num_kv_heads;
  assert(blocks < 1u << 31);
  with_head_dim(args.kv.head_dim, [&]<uint32_t kHeadDim>() {
    constexpr size_t kShared = shared_bytes<kHeadDim, TileShared<kHeadDim>>();
    allow_shared(attend_tiles<T, kHeadDim>, kShared);
    launch(stream, static_cast<uint32_t>(blocks), kBlockThreads, kShared, attend_tiles<T, kHeadDim>,
           p);
  });
}

template <class T>
void run_rows(CudaStream& stream, const AttentionArgs& args, std::span<const RowItem> items) {
  const RowParams<T> p = {
      .q = args.q.as<T>(),
      .q_stride = args.q.row_stride,
      .out = args.out.as<T>(),
      .out_stride = args.out.row_stride,
      .kv = args.kv,
      .sequences = args.sequences.device,
      .items = items.data(),
      .group = args.num_heads / args.kv.num_kv_heads,
      .block_shift = static_cast<uint32_t>(std::countr_zero(args.kv.block_tokens)),
      .scale_log2 = args.scale * kLog2E};
  const auto blocks = static_cast<uint32_t>(items.size()) * args.kv.num_kv_heads;
  with_head_dim(args.kv.head_dim, [&]<uint32_t kHeadDim>() {
    constexpr size_t kShared = shared_bytes<kHeadDim, RowShared<kHeadDim>>();
    allow_shared(attend_rows<T, kHeadDim>, kShared);
    launch(stream, blocks, kBlockThreads, kShared, attend_rows<T, kHeadDim>, p);
  });
}

}  // namespace baton::ops::attention
