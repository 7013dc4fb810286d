#pragma once

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/attention_mma.cuh"
#include "common/ops/cuda/attention_plan.h"

// The tile kernel: attention of few rows over many tokens, spread over the GPU by tiles.
namespace baton::ops::attention {

template <class T>
struct TileParams {
  const T* q;  // [rows, heads * head_dim]
  int64_t q_stride;
  T* out;  // [rows, heads * head_dim]
  int64_t out_stride;
  PagedKv kv;
  const SequenceRows* sequences;
  AttentionRecords records;
  uint32_t group;        // query heads of one KV head
  uint32_t block_shift;  // log2 of block_tokens
  uint32_t max_rows;     // of a sequence that takes part
  uint32_t query_tiles;  // as in TilePlan, like these two
  uint32_t group_splits, tile_splits;
  float scale_log2;  // scale * log2(e)
  bool merges;       // sequences of one record are done with at once, others' get merged; or else
                     // all records are written, those of unseen tiles, too
};

// What a block does: of a sequence, KV head and tile of queries every splits-th record.
struct TileItem {
  uint32_t kv_head, sequence, first_query, split, splits;
  uint32_t record_tiles;

  // Heads change fastest: they are neighbours in memory.
  template <class T>
  __device__ __forceinline__ explicit TileItem(const TileParams<T>& p) {
    kv_head = blockIdx.x % p.kv.num_kv_heads;
    uint32_t rest = blockIdx.x / p.kv.num_kv_heads;
    const uint32_t in_groups = p.records.num_grouped * p.query_tiles * p.group_splits;
    const bool has_groups = rest < in_groups;
    if (!has_groups) rest -= in_groups;
    splits = has_groups ? p.group_splits : p.tile_splits;
    record_tiles = has_groups ? kGroupTiles : 1;
    split = rest % splits;
    rest /= splits;
    first_query = rest % p.query_tiles * kTileQueries;
    sequence = rest / p.query_tiles + (has_groups ? 0 : p.records.num_grouped);
  }
};

// Chunks of K and of V on their way or in use. Several blocks on a multiprocessor hide what one
// waits for; with two chunks and head_dim 128 three fit on Hopper, and one on any GPU.
template <uint32_t kHeadDim>
constexpr uint32_t kTileStages = kHeadDim <= 160 ? 2 : 1;
template <uint32_t kHeadDim>
constexpr uint32_t kTileBlocks = kHeadDim <= 64    ? 5
                                 : kHeadDim <= 128 ? 3
                                 : kHeadDim <= 256 ? 2
                                                   : 1;

constexpr uint32_t kProbabilityPitch = kChunk * kHalfBytes + 16;

template <uint32_t kHeadDim>
struct TileShared {
  alignas(16) std::byte keys[kTileStages<kHeadDim>][kPlaneBytes<kHeadDim>];
  alignas(16) std::byte values[kTileStages<kHeadDim>][kPlaneBytes<kHeadDim>];
  alignas(16) std::byte probabilities[kTileQueries * kProbabilityPitch];
  float max[4][kTileQueries];  // of each warp's tokens
};

// The records of one block as a run of chunks: from `first` on every step-th before end_record, the
// last one up to token `end`. A record is of record_chunks chunks, a power of two.
struct ChunkRun {
  uint32_t first, step, record_chunks, num_chunks;

  __device__ ChunkRun(uint32_t first_record, uint32_t end_record, uint32_t record_step,
                      uint32_t chunks, uint32_t end)
      : first(first_record), step(record_step), record_chunks(chunks), num_chunks(0) {
    if (first >= end_record) return;
    const uint32_t others = (end_record - first - 1) / step;
    const uint32_t begin = (first + others * step) * chunks;
    num_chunks = others * chunks + min(divide_up(end, kChunk) - begin, chunks);
  }
  __device__ uint32_t record(uint32_t chunk) const {
    return first + (chunk >> (__ffs(record_chunks) - 1)) * step;
  }
  __device__ uint32_t token(uint32_t chunk) const {
    return (record(chunk) * record_chunks + (chunk & (record_chunks - 1))) * kChunk;
  }
  __device__ bool ends_record(uint32_t chunk) const {
    return ((chunk + 1) & (record_chunks - 1)) == 0 || chunk + 1 == num_chunks;
  }
};

// A lane's two query vectors.
template <class T>
struct TileQueries {
  int seen[2] = {0, 0};  // tokens; 0: there is no such vector
  const T* q[2] = {nullptr, nullptr};
  T* out[2];
  float* records[2];

  __device__ __forceinline__ TileQueries(const TileParams<T>& p, const SequenceRows& seq,
                                         const TileItem& item) {
    const uint32_t head_dim = p.kv.head_dim;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t query = item.first_query + threadIdx.x % 32 / 4 + 8 * r;
      if (query >= seq.num_rows * p.group) continue;
      const uint32_t row = query / p.group;
      const uint32_t head = item.kv_head * p.group + query % p.group;
      const int64_t batch_row = seq.first_row + row;
      seen[r] = static_cast<int>(seq.position + row + 1);
      q[r] = p.q + batch_row * p.q_stride + head * head_dim;
      out[r] = p.out + batch_row * p.out_stride + head * head_dim;
      records[r] = p.records.data + (batch_row - p.records.first_row) * p.records.row_stride +
                   size_t{head} * p.records.num_tiles * (head_dim + 2);
    }
  }
};

// Of head_dim in sixteens, a warp has those from its own number on, every fourth.
template <uint32_t kHeadDim>
constexpr int kWarpPairs = (kHeadDim / 16 + 3) / 4;

// The tiles of a record that are merged so far.
template <uint32_t kHeadDim>
struct RecordState {
  static constexpr int kTiles = 2 * kWarpPairs<kHeadDim>;
  MergedRows rows;
  float o[kTiles][4] = {};

  __device__ __forceinline__ void add(const TileState<kTiles>& tile) {
    const MergedRows::Outputs merge = rows.add(tile);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) merge.add(o[j][i], tile.o[j][i], i / 2);
    }
  }
};

// A finished record, or what it says as the result.
template <uint32_t kHeadDim, class T>
__device__ __forceinline__ void write_record(const TileParams<T>& p, const TileQueries<T>& queries,
                                             const RecordState<kHeadDim>& state, uint32_t index,
                                             bool is_whole) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, head_dim = p.kv.head_dim;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (queries.seen[r] == 0) continue;
    const float sum = state.rows.sum[r];
    float* const record =
        queries.records[r] + size_t{index - p.records.first_tile} * (head_dim + 2);
#pragma unroll
    for (int j = 0; j < 2 * kWarpPairs<kHeadDim>; ++j) {
      const uint32_t column = (warp + j / 2 * 4) * 16 + j % 2 * 8 + lane % 4 * 2;
      if (column >= head_dim) continue;
      const float a = unsigned_zero(state.o[j][2 * r]), b = unsigned_zero(state.o[j][2 * r + 1]);
      if (is_whole) {
        store_pair(queries.out[r] + column, divided(a, sum), divided(b, sum));
      } else {
        store_pair(record + column, a, b);
      }
    }
    if (!is_whole && warp == 0 && lane % 4 == 0) {
      store_pair(record + head_dim, sum == 0.0f ? 0.0f : state.rows.max[r], sum);
    }
  }
}

// Empty records for the block's tiles from `end_tile` on.
template <class T>
__device__ __forceinline__ void write_empty(const TileParams<T>& p, const SequenceRows& seq,
                                            const TileItem& item, uint32_t first_tile,
                                            uint32_t end_tile) {
  const uint32_t record_floats = p.kv.head_dim + 2;
  uint32_t tile = first_tile;
  if (tile < end_tile) tile += divide_up(end_tile - tile, item.splits) * item.splits;
  for (; tile < p.records.first_tile + p.records.num_tiles; tile += item.splits) {
    for (uint32_t i = threadIdx.x; i < kTileQueries * record_floats; i += kBlockThreads) {
      const uint32_t query = item.first_query + i / record_floats;
      if (query >= seq.num_rows * p.group) break;
      const uint32_t head = item.kv_head * p.group + query % p.group;
      const int64_t row = int64_t{seq.first_row} + query / p.group - p.records.first_row;
      const size_t record = size_t{head} * p.records.num_tiles + tile - p.records.first_tile;
      p.records.data[row * p.records.row_stride + record * record_floats + i % record_floats] = 0;
    }
  }
}

// One block: up to 16 query vectors of a sequence and KV head, some of its records. Grid: KV heads
// * query tiles * splits * sequences. Its four warps divide a chunk's tokens to multiply keys, and
// head_dim to multiply values; maxima and exponentials pass through shared memory. A finished tile
// is merged into its record in registers.
// Reads K and V once, 4 * head_dim bytes a token and KV head, and writes a record of
// 4 * (head_dim + 2) bytes for each vector and 1024 or 256 tokens. The roof is the memory's
// bandwidth.
template <class T, uint32_t kHeadDim>
__global__ void __launch_bounds__(kBlockThreads, kTileBlocks<kHeadDim>)
    attend_tiles(const TileParams<T> p) {
  wait_for_inputs();
  let_next_start();
  extern __shared__ uint4 shared_memory[];
  auto& shared = *reinterpret_cast<TileShared<kHeadDim>*>(shared_memory);
  constexpr int kStages = kTileStages<kHeadDim>;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const TileItem item(p);
  const SequenceRows seq = p.sequences[item.sequence];
  const uint32_t num_queries = seq.num_rows * p.group;
  if (seq.num_rows > p.max_rows || item.first_query >= num_queries) return;
  const uint32_t last_query = min(item.first_query + kTileQueries, num_queries) - 1;
  const uint32_t end = seq.position + last_query / p.group + 1;  // of the tokens that are seen
  const uint32_t end_tile =
      min(divide_up(end, kAttentionTile), p.records.first_tile + p.records.num_tiles);
  const ChunkRun run(p.records.first_tile + item.split, divide_up(end_tile, item.record_tiles),
                     item.splits, item.record_tiles * kTileChunks, end);
  if (!p.merges) write_empty(p, seq, item, run.first, end_tile);
  if (run.num_chunks == 0) return;
  const bool is_whole =
      p.merges && seq.position + seq.num_rows <= item.record_tiles * kAttentionTile;

  const KvSource source = {p.kv, seq.block_table, item.kv_head, p.block_shift, end};
  const auto copy = [&](uint32_t plane, uint32_t chunk) {
    if (chunk < run.num_chunks) {
      const auto& ring = plane == 0 ? shared.keys : shared.values;
      source.copy<kHeadDim>(plane, run.token(chunk), shared_address(ring[chunk % kStages]));
    }
    commit_copies();
  };
#pragma unroll
  for (uint32_t c = 0; c < kStages; ++c) {
    copy(0, c);
    copy(1, c);
  }

  const TileQueries<T> queries(p, seq, item);
  uint32_t q[kHeadDim / 16][4];
  load_queries<kHeadDim>(q, queries.q, p.kv.head_dim);
  const uint32_t key_lane = key_offset(kPitch<kHeadDim>) + warp * 16 * kPitch<kHeadDim>;
  const uint32_t value_lane = row_offset(kPitch<kHeadDim>);
  const uint32_t probability_lane =
      shared_address(shared.probabilities) + row_offset(kProbabilityPitch);
  TileState<2 * kWarpPairs<kHeadDim>> state;
  state.clear();
  RecordState<kHeadDim> record;
  for (uint32_t c = 0; c < run.num_chunks; ++c) {
    // Groups of copies are committed in the order K, V of chunk after chunk.
    c == 0 ? wait_copies<2 * kStages - 1>() : wait_copies<2 * kStages - 2>();
    __syncthreads();  // K is here; the values and exponentials of the chunk before are done with
    if (c > 0) copy(1, c - 1 + kStages);
    float s[2][4], max[2], zero_at[2];
    multiply_keys<T, kHeadDim, 1>(s, q, shared_address(shared.keys[c % kStages]) + key_lane);
    const int column = static_cast<int>(run.token(c) + warp * 16 + lane % 4 * 2);
    scale_scores(s, p.scale_log2, column, queries.seen, max);
    if (lane % 4 == 0) {
      shared.max[warp][lane / 4] = max[0];
      shared.max[warp][lane / 4 + 8] = max[1];
    }
    __syncthreads();  // the maxima are here; the keys are done with
    copy(0, c + kStages);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t row = lane / 4 + 8 * r;
      max[r] = fmaxf(fmaxf(shared.max[0][row], shared.max[1][row]),
                     fmaxf(shared.max[2][row], shared.max[3][row]));
    }
    state.rescale(max, zero_at);
    uint32_t e[2][2];
    exponentiate<T>(s, zero_at, e);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t row = lane / 4 + i % 2 * 8, token = warp * 16 + i / 2 * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(shared.probabilities + row * kProbabilityPitch +
                                   token * kHalfBytes) = e[i / 2][i % 2];
    }
    wait_copies<2 * kStages - 1>();
    __syncthreads();  // V and the exponentials are here
    const uint32_t values = shared_address(shared.values[c % kStages]) + value_lane;
#pragma unroll
    for (uint32_t k = 0; k < kChunk / 16; ++k) {
      uint32_t a[4];
      load_matrices(a, probability_lane + k * kStepBytes);
      multiply_values<T, kHeadDim, kWarpPairs<kHeadDim>, 4>(
          state.o, state.sum, a, values + k * 16 * kPitch<kHeadDim>, warp);
    }
    if (c % kTileChunks == kTileChunks - 1 || c + 1 == run.num_chunks) {
      record.add(state);
      state.clear();
      if (run.ends_record(c)) {
        write_record<kHeadDim>(p, queries, record, run.record(c), is_whole);
        record = {};
      }
    }
  }
}

}  // namespace baton::ops::attention
