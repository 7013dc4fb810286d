#include <cassert>

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/attention_mma.cuh"
#include "common/ops/cuda/attention_plan.h"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

using namespace attention;

constexpr uint32_t kMaxThreads = 512;  // a thread has one element of head_dim
constexpr uint32_t kMaxParts = 64;     // merged by one launch

// One thread's output, and the maximum and sum of its vector.
struct Merged {
  float output = 0;
  float max = -INFINITY;
  float sum = 0;

  // No branch: what is loaded and shuffled for the next records runs ahead.
  __device__ __forceinline__ void add(float record_output, float record_max, float record_sum) {
    const bool is_filled = record_sum != 0.0f;
    const MergeWeights weights = merge_weights(max, record_max);
    output = is_filled ? merged(output, record_output, weights.keep, weights.gain) : output;
    sum = is_filled ? merged(sum, record_sum, weights.keep, weights.gain) : sum;
    max = is_filled ? weights.max : max;
  }
};

// One vector's merged records, by the threads of a block: thread i has output i. All threads of a
// warp take part in everything.
struct MergedVector {
  Merged groups;  // those that are complete
  Merged open;    // the group that is not

  // `records`: those from index `first` on, of tiles, or of whole groups. 32 at a time, counted
  // from 0, are on their way together.
  template <uint32_t kGroupRecords>
  __device__ __forceinline__ void add(const float* records, uint32_t first, uint32_t count,
                                      uint32_t head_dim) {
    const uint32_t lane = threadIdx.x % 32, record_floats = head_dim + 2, end = first + count;
    for (uint32_t begin = first / 32 * 32; begin < end; begin += 32) {
      const auto is_there = [&](uint32_t t) { return begin + t >= first && begin + t < end; };
      const auto record = [&](uint32_t t) { return records + (begin + t - first) * record_floats; };
      float outputs[32];
#pragma unroll
      for (uint32_t t = 0; t < 32; ++t) {
        outputs[t] = is_there(t) && threadIdx.x < head_dim ? record(t)[threadIdx.x] : 0.0f;
      }
      const float lane_max = is_there(lane) ? record(lane)[head_dim] : 0.0f;
      const float lane_sum = is_there(lane) ? record(lane)[head_dim + 1] : 0.0f;
#pragma unroll
      for (uint32_t t = 0; t < 32; ++t) {
        if (t % 8 == 0 && begin + t >= end) break;
        open.add(outputs[t], __shfl_sync(0xffffffffu, lane_max, t),
                 __shfl_sync(0xffffffffu, lane_sum, t));
        if ((t + 1) % kGroupRecords == 0) close(is_there(t));
      }
    }
  }
  // No more of the open group is to come, if that `is_so`.
  __device__ __forceinline__ void close(bool is_so = true) {
    groups.add(unsigned_zero(open.output), open.max, is_so ? open.sum : 0.0f);
    open.output = is_so ? 0.0f : open.output;
    open.max = is_so ? -INFINITY : open.max;
    open.sum = is_so ? 0.0f : open.sum;
  }
};

template <class T>
struct MergeTilesParams {
  AttentionRecords records;
  const SequenceRows* sequences;
  T* out;  // [rows, heads * head_dim]
  int64_t out_stride;
  uint32_t num_heads, head_dim;
  uint32_t max_rows;  // of a sequence that takes part
};

// A block merges one row's one head. Grid: (rows of a sequence * heads, sequences).
// Reads 4 * (head_dim + 2) bytes a record, from L2 as far as they are still there. The roof is the
// bandwidth of that or of the memory; for long contexts of few sequences it is the latency of 32
// records at a time.
template <class T>
__global__ void __launch_bounds__(kMaxThreads) merge_sequence_tiles(const MergeTilesParams<T> p) {
  wait_for_inputs();
  let_next_start();
  const SequenceRows seq = p.sequences[blockIdx.y];
  const uint32_t row = blockIdx.x / p.num_heads, head = blockIdx.x % p.num_heads;
  if (seq.num_rows > p.max_rows || row >= seq.num_rows) return;
  const bool has_groups = blockIdx.y < p.records.num_grouped;
  const uint32_t record_tokens = has_groups ? kGroupTiles * kAttentionTile : kAttentionTile;
  if (seq.position + seq.num_rows <= record_tokens) return;  // its result is there
  const int64_t batch_row = seq.first_row + row;
  const float* const records = p.records.data +
                               (batch_row - p.records.first_row) * p.records.row_stride +
                               size_t{head} * p.records.num_tiles * (p.head_dim + 2);
  const uint32_t count = (seq.position + row) / record_tokens + 1;
  MergedVector state;
  if (has_groups) {
    state.add<1>(records, 0, count, p.head_dim);
  } else {
    state.add<kGroupTiles>(records, 0, count, p.head_dim);
  }
  state.close();
  if (threadIdx.x >= p.head_dim) return;
  p.out[batch_row * p.out_stride + head * p.head_dim + threadIdx.x] =
      from_float<T>(divided(state.groups.output, state.groups.sum));
}

struct Part {
  const float* records;
  int64_t row_stride;
  uint32_t first_tile, num_tiles;
};

template <class T>
struct MergePartsParams {
  Part parts[kMaxParts];
  uint32_t num_parts;
  uint32_t num_heads, head_dim;
  T* out;  // [rows, heads * head_dim], or null and
  int64_t out_stride;
  // [rows, heads, 2, head_dim + 2]: what is merged by one launch and goes on in the next, complete
  // groups and the open one.
  float* merged;
  bool goes_on;  // with what is there
};

__device__ __forceinline__ Merged load_merged(const float* record, uint32_t head_dim) {
  return {threadIdx.x < head_dim ? record[threadIdx.x] : 0.0f, record[head_dim],
          record[head_dim + 1]};
}
__device__ __forceinline__ void store_merged(float* record, const Merged& state,
                                             uint32_t head_dim) {
  if (threadIdx.x < head_dim) record[threadIdx.x] = state.output;
  if (threadIdx.x == 0) store_pair(record + head_dim, state.max, state.sum);
}

// A block merges one row's one head. Grid: rows * heads. Reads 4 * (head_dim + 2) bytes a tile; the
// roof is the memory's bandwidth.
template <class T>
__global__ void __launch_bounds__(kMaxThreads) merge_parts(const MergePartsParams<T> p) {
  wait_for_inputs();
  let_next_start();
  const int64_t row = blockIdx.x / p.num_heads;
  const uint32_t head = blockIdx.x % p.num_heads;
  float* const groups = p.merged + size_t{blockIdx.x} * 2 * (p.head_dim + 2);
  float* const open = groups + p.head_dim + 2;
  MergedVector state;
  if (p.goes_on) {
    state.groups = load_merged(groups, p.head_dim);
    state.open = load_merged(open, p.head_dim);
  }
  for (uint32_t i = 0; i < p.num_parts; ++i) {
    const Part& part = p.parts[i];
    state.add<kGroupTiles>(
        part.records + row * part.row_stride + size_t{head} * part.num_tiles * (p.head_dim + 2),
        part.first_tile, part.num_tiles, p.head_dim);
  }
  if (p.out != nullptr) {
    state.close();
    if (threadIdx.x >= p.head_dim) return;
    p.out[row * p.out_stride + head * p.head_dim + threadIdx.x] =
        from_float<T>(divided(state.groups.output, state.groups.sum));
    return;
  }
  __syncthreads();  // all have read what was there
  store_merged(groups, state.groups, p.head_dim);
  store_merged(open, state.open, p.head_dim);
}

uint32_t merge_threads(uint32_t head_dim) {
  assert(head_dim <= kMaxThreads);
  return ceil_div(head_dim, 32u) * 32;
}

template <class T>
void merge_all_parts(CudaStream& stream, std::span<const AttentionPartials> parts,
                     uint32_t num_heads, const Tensor& out) {
  MergePartsParams<T> p = {.num_heads = num_heads,
                           .head_dim = static_cast<uint32_t>(out.cols / num_heads),
                           .out_stride = out.row_stride};
  const uint32_t vectors = static_cast<uint32_t>(out.rows) * num_heads;
  for (const AttentionPartials& part : parts) {
    if (p.num_parts == kMaxParts) {
      const size_t bytes = size_t{vectors} * 2 * (p.head_dim + 2) * sizeof(float);
      p.merged = reinterpret_cast<float*>(stream.scratch(CudaStream::Use::kAttention, bytes));
      launch(stream, vectors, merge_threads(p.head_dim), 0, merge_parts<T>, p);
      p.goes_on = true;
      p.num_parts = 0;
    }
    assert(part.records.rows == out.rows);
    p.parts[p.num_parts++] = {part.records.as<float>(), part.records.row_stride, part.first_tile,
                              part.num_tiles};
  }
  p.out = out.as<T>();
  launch(stream, vectors, merge_threads(p.head_dim), 0, merge_parts<T>, p);
}

}  // namespace

void merge_tiles(CudaStream& stream, const AttentionArgs& args, const AttentionRecords& records,
                 uint32_t max_rows) {
  const dim3 grid(max_rows * args.num_heads, static_cast<uint32_t>(args.sequences.host.size()));
  with_half(args.out.dtype, [&]<class T>() {
    const MergeTilesParams<T> p = {.records = records,
                                   .sequences = args.sequences.device,
                                   .out = args.out.as<T>(),
                                   .out_stride = args.out.row_stride,
                                   .num_heads = args.num_heads,
                                   .head_dim = args.kv.head_dim,
                                   .max_rows = max_rows};
    launch(stream, grid, merge_threads(p.head_dim), 0, merge_sequence_tiles<T>, p);
  });
}

void cuda_merge_partials(Stream& base, std::span<const AttentionPartials> parts, uint32_t num_heads,
                         const Tensor& out) {
  assert(out.cols % num_heads == 0);
  if (out.rows == 0) return;
  with_half(out.dtype,
            [&]<class T>() { merge_all_parts<T>(cuda_stream(base), parts, num_heads, out); });
}

}  // namespace baton::ops
