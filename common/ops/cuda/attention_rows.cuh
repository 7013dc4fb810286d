#pragma once

#include "common/ops/cuda/attention_mma.cuh"
#include "common/ops/cuda/attention_plan.h"

// The row kernel: attention of many rows, each of whose vectors stays with one warp to the end.
namespace baton::ops::attention {

template <class T>
struct RowParams {
  const T* q;  // [rows, heads * head_dim]
  int64_t q_stride;
  T* out;  // [rows, heads * head_dim]
  int64_t out_stride;
  PagedKv kv;
  const SequenceRows* sequences;
  const RowItem* items;
  uint32_t group;        // query heads of one KV head
  uint32_t block_shift;  // log2 of block_tokens
  float scale_log2;      // scale * log2(e)
};

// Chunks of K and V in turn, in a ring of this many: what fits beside a group's outputs in the
// smallest multiprocessor's 99 KiB.
template <uint32_t kHeadDim>
constexpr uint32_t kRowPlanes = kHeadDim <= 128   ? 3
                                : kHeadDim <= 192 ? 2
                                                  : 1;

// Where there is no room at all, they go to the threads' own memory, too.
template <uint32_t kHeadDim>
constexpr bool kSharesGroup = kHeadDim <= 256;

template <uint32_t kHeadDim>
struct RowShared {
  alignas(16) std::byte planes[kRowPlanes<kHeadDim>][kPlaneBytes<kHeadDim>];
  // What a thread has merged of a group: its accumulators, those of all threads side by side.
  float4 group[kSharesGroup<kHeadDim> ? kHeadDim / 8 : 1][kBlockThreads];
};

// K and V of a block's chunks, one after the other, through the ring. A step is wait(), use of
// plane(), done(); all threads take each.
template <uint32_t kHeadDim>
class PlaneRing {
 public:
  __device__ __forceinline__ PlaneRing(const KvSource& source, uint32_t planes, uint32_t num_planes)
      : source_(source), planes_(planes), num_planes_(num_planes) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) copy_next();
  }
  __device__ __forceinline__ uint32_t plane() const {
    return planes_ + used_ % kPlanes * kPlaneBytes<kHeadDim>;
  }
  __device__ __forceinline__ void wait() {
    wait_copies<kAhead - 1>();
    __syncthreads();  // the plane is here, and the one before it done with
    if (kPlanes > 1) copy_next();
  }
  __device__ __forceinline__ void done() {
    ++used_;
    if (kPlanes > 1) return;
    __syncthreads();
    copy_next();
  }

 private:
  static constexpr uint32_t kPlanes = kRowPlanes<kHeadDim>;
  static constexpr uint32_t kAhead = kPlanes > 1 ? kPlanes - 1 : 1;

  __device__ __forceinline__ void copy_next() {
    if (copied_ < num_planes_) {
      source_.copy<kHeadDim>(copied_ % 2, copied_ / 2 * kChunk,
                             planes_ + copied_ % kPlanes * kPlaneBytes<kHeadDim>);
    }
    ++copied_;
    commit_copies();
  }

  const KvSource& source_;
  uint32_t planes_;  // shared address
  uint32_t num_planes_;
  uint32_t copied_ = 0, used_ = 0;
};

// A lane's two query vectors.
template <class T>
struct RowQueries {
  int seen[2] = {0, 0};  // tokens; 0: there is no such vector
  const T* q[2] = {nullptr, nullptr};
  T* out[2];

  __device__ __forceinline__ RowQueries(const RowParams<T>& p, const SequenceRows& seq,
                                        uint32_t kv_head, uint32_t first_query) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t query = first_query + threadIdx.x % 32 / 4 + 8 * r;
      if (query >= seq.num_rows * p.group) continue;
      const uint32_t row = query / p.group;
      const uint32_t column = (kv_head * p.group + query % p.group) * p.kv.head_dim;
      const int64_t batch_row = seq.first_row + row;
      seen[r] = static_cast<int>(seq.position + row + 1);
      q[r] = p.q + batch_row * p.q_stride + column;
      out[r] = p.out + batch_row * p.out_stride + column;
    }
  }
};

// One block: 64 query vectors of a sequence and KV head, 16 for each warp. Grid: items * KV heads.
// A warp does whole chunks by itself, exponentials going from accumulators to operands in
// registers. A tile is merged into its group, in shared memory, when it is finished, and every
// kGroupTiles tiles the group into what is merged before, in the threads' own memory.
// 4 * head_dim FLOP for each vector and token that it sees; K and V come from L2 for all but the
// first block that reads them. The roof is the matrix units' rate.
template <class T, uint32_t kHeadDim>
__global__ void __launch_bounds__(kBlockThreads, kHeadDim <= 128 ? 2 : 1)
    attend_rows(const RowParams<T> p) {
  wait_for_inputs();
  let_next_start();
  extern __shared__ uint4 shared_memory[];
  auto& shared = *reinterpret_cast<RowShared<kHeadDim>*>(shared_memory);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const RowItem item = p.items[blockIdx.x / p.kv.num_kv_heads];
  const uint32_t kv_head = blockIdx.x % p.kv.num_kv_heads;
  const SequenceRows seq = p.sequences[item.sequence];
  const uint32_t num_queries = seq.num_rows * p.group;
  // Tokens that the vectors before `query`, which is not the first, see together.
  const auto seen_before = [&](uint32_t query) {
    return seq.position + (min(query, num_queries) - 1) / p.group + 1;
  };
  const uint32_t end = seen_before(item.first_query + kRowQueries);
  const uint32_t first_query = item.first_query + warp * kTileQueries;
  const uint32_t warp_end = first_query < num_queries ? seen_before(first_query + kTileQueries) : 0;

  const KvSource source = {p.kv, seq.block_table, kv_head, p.block_shift, end};
  const uint32_t num_chunks = divide_up(end, kChunk);
  PlaneRing<kHeadDim> ring(source, shared_address(shared.planes), 2 * num_chunks);
  const RowQueries<T> queries(p, seq, kv_head, first_query);
  uint32_t q[kHeadDim / 16][4];
  load_queries<kHeadDim>(q, queries.q, p.kv.head_dim);
  float4 own_group[kSharesGroup<kHeadDim> ? 1 : kHeadDim / 8], total_outputs[kHeadDim / 8];
  const auto group_outputs = [&](uint32_t j) -> float4& {
    return kSharesGroup<kHeadDim> ? shared.group[j][threadIdx.x] : own_group[j];
  };
  MergedRows group, total;
  const auto merge_group = [&] {
    const MergedRows::Outputs merge = total.add(group.max, group.sum);
#pragma unroll 1  // rarely done: total_outputs is not to be in registers
    for (uint32_t j = 0; j < kHeadDim / 8; ++j) {
      const float4 o = group_outputs(j);
      merge.add(total_outputs[j].x, o.x, 0);
      merge.add(total_outputs[j].y, o.y, 0);
      merge.add(total_outputs[j].z, o.z, 1);
      merge.add(total_outputs[j].w, o.w, 1);
      group_outputs(j) = {0, 0, 0, 0};
    }
    group = {};
  };
#pragma unroll 1
  for (uint32_t j = 0; j < kHeadDim / 8; ++j) total_outputs[j] = group_outputs(j) = {0, 0, 0, 0};
  TileState<kHeadDim / 8> state;
  state.clear();
  for (uint32_t c = 0; c < num_chunks; ++c) {
    const bool sees = c * kChunk < warp_end;  // the warp's last vector does
    uint32_t e[kChunk / 8][2];
    ring.wait();
    if (sees) {
      float s[kChunk / 8][4], max[2], zero_at[2];
      multiply_keys<T, kHeadDim, kChunk / 16>(s, q, ring.plane() + key_offset(kPitch<kHeadDim>));
      scale_scores(s, p.scale_log2, static_cast<int>(c * kChunk + lane % 4 * 2), queries.seen, max);
      state.rescale(max, zero_at);
      exponentiate<T>(s, zero_at, e);
    }
    ring.done();
    ring.wait();
    if (sees) {
      const uint32_t values = ring.plane() + row_offset(kPitch<kHeadDim>);
#pragma unroll
      for (uint32_t k = 0; k < kChunk / 16; ++k) {
        const uint32_t a[4] = {e[2 * k][0], e[2 * k][1], e[2 * k + 1][0], e[2 * k + 1][1]};
        multiply_values<T, kHeadDim, kHeadDim / 16, 1>(state.o, state.sum, a,
                                                       values + k * 16 * kPitch<kHeadDim>, 0);
      }
    }
    ring.done();
    if (sees && (c % kTileChunks == kTileChunks - 1 || (c + 1) * kChunk >= warp_end)) {
      const MergedRows::Outputs merge = group.add(state);
#pragma unroll
      for (uint32_t j = 0; j < kHeadDim / 8; ++j) {
        float4 o = group_outputs(j);
        merge.add(o.x, state.o[j][0], 0);
        merge.add(o.y, state.o[j][1], 0);
        merge.add(o.z, state.o[j][2], 1);
        merge.add(o.w, state.o[j][3], 1);
        group_outputs(j) = o;
      }
      state.clear();
      if ((c + 1) % (kGroupTiles * kTileChunks) == 0) merge_group();
    }
  }
  merge_group();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (queries.seen[r] == 0) continue;
#pragma unroll 1
    for (uint32_t j = 0; j < p.kv.head_dim / 8; ++j) {
      const float4 o = total_outputs[j];
      store_pair(queries.out[r] + j * 8 + lane % 4 * 2, divided(r == 0 ? o.x : o.z, total.sum[r]),
                 divided(r == 0 ? o.y : o.w, total.sum[r]));
    }
  }
}

}  // namespace baton::ops::attention
