#include <cassert>

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/attention_mma.cuh"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

using namespace attention;

constexpr uint32_t kMaxThreads = 512;  // a thread has one element of head_dim
constexpr uint32_t kMaxParts = 64;     // merged by one launch

// One vector's merged tiles, by the threads of a block: thread i has output i, every one the
// maximum and the sum. All threads of a warp take part in everything.
struct MergedVector {
  float output = 0;
  float max = -INFINITY;
  float sum = 0;

  // `records`: of consecutive tiles. 32 at a time are on their way together; a lane works out the
  // weights of one of them. Maxima may be taken in any order, so those of the tiles before are
  // known at once; outputs and sums are merged one after the other.
  __device__ __forceinline__ void add(const float* records, uint32_t num_tiles, uint32_t head_dim) {
    const uint32_t lane = threadIdx.x % 32, record_floats = head_dim + 2;
    for (; num_tiles > 0; records += 32 * record_floats) {
      const uint32_t count = min(32u, num_tiles);
      num_tiles -= count;
      float outputs[32];
#pragma unroll
      for (uint32_t t = 0; t < 32; ++t) {
        const bool is_there = t < count && threadIdx.x < head_dim;
        outputs[t] = is_there ? records[t * record_floats + threadIdx.x] : 0.0f;
      }
      float record_max = -INFINITY, record_sum = 0;
      if (lane < count) {
        record_max = records[lane * record_floats + head_dim];
        record_sum = records[lane * record_floats + head_dim + 1];
      }
      const uint32_t filled = __ballot_sync(0xffffffffu, record_sum != 0.0f);
      if (record_sum == 0.0f) record_max = -INFINITY;
      float highest = fmaxf(max, record_max);  // of this and all earlier tiles
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        // Lanes below d get their own back.
        highest = fmaxf(highest, __shfl_up_sync(0xffffffffu, highest, d));
      }
      float before = __shfl_up_sync(0xffffffffu, highest, 1);
      if (lane == 0) before = max;
      max = __shfl_sync(0xffffffffu, highest, 31);
      const MergeWeights weights = merge_weights(before, record_max);
#pragma unroll
      for (uint32_t t = 0; t < 32; ++t) {
        if (t % 8 == 0 && t >= count) break;
        const bool is_filled = (filled >> t & 1) != 0;  // no branch: shuffles run ahead
        const float keep = __shfl_sync(0xffffffffu, weights.keep, t);
        const float gain = __shfl_sync(0xffffffffu, weights.gain, t);
        const float tile_sum = __shfl_sync(0xffffffffu, record_sum, t);
        output = is_filled ? merged(output, outputs[t], keep, gain) : output;
        sum = is_filled ? merged(sum, tile_sum, keep, gain) : sum;
      }
    }
  }
};

struct MergeTilesParams {
  AttentionRecords records;
  const SequenceRows* sequences;
  bf16* out;  // [rows, heads * head_dim]
  int64_t out_stride;
  uint32_t num_heads, head_dim;
  uint32_t max_rows;  // of a sequence that takes part
};

// A block merges one row's one head. Grid: (rows of a sequence * heads, sequences).
// Reads 4 * (head_dim + 2) bytes a tile, mostly from L2, whose bandwidth is the roof; for long
// contexts of few sequences it is the latency of 32 tiles at a time.
__global__ void __launch_bounds__(kMaxThreads) merge_sequence_tiles(const MergeTilesParams p) {
  wait_for_inputs();
  let_next_start();
  const SequenceRows seq = p.sequences[blockIdx.y];
  const uint32_t row = blockIdx.x / p.num_heads, head = blockIdx.x % p.num_heads;
  if (seq.num_rows > p.max_rows || row >= seq.num_rows) return;
  if (seq.position + seq.num_rows <= kAttentionTile) return;
  const int64_t batch_row = seq.first_row + row;
  const float* const records = p.records.data +
                               (batch_row - p.records.first_row) * p.records.row_stride +
                               size_t{head} * p.records.num_tiles * (p.head_dim + 2);
  MergedVector state;
  state.add(records, (seq.position + row) / kAttentionTile + 1, p.head_dim);
  if (threadIdx.x >= p.head_dim) return;
  p.out[batch_row * p.out_stride + head * p.head_dim + threadIdx.x] =
      __float2bfloat16_rn(divided(state.output, state.sum));
}

struct Part {
  const float* records;
  int64_t row_stride;
  uint32_t num_tiles;
};

struct MergePartsParams {
  Part parts[kMaxParts];
  uint32_t num_parts;
  uint32_t num_heads, head_dim;
  bf16* out;  // [rows, heads * head_dim], or null and
  int64_t out_stride;
  float* merged;  // [rows, heads, head_dim + 2]: records that are a part of the next launch
};

// A block merges one row's one head. Grid: rows * heads. Reads 4 * (head_dim + 2) bytes a tile; the
// roof is the memory's bandwidth.
__global__ void __launch_bounds__(kMaxThreads) merge_parts(const MergePartsParams p) {
  wait_for_inputs();
  let_next_start();
  const int64_t row = blockIdx.x / p.num_heads;
  const uint32_t head = blockIdx.x % p.num_heads;
  MergedVector state;
  for (uint32_t i = 0; i < p.num_parts; ++i) {
    const Part& part = p.parts[i];
    state.add(
        part.records + row * part.row_stride + size_t{head} * part.num_tiles * (p.head_dim + 2),
        part.num_tiles, p.head_dim);
  }
  if (p.out != nullptr) {
    if (threadIdx.x >= p.head_dim) return;
    p.out[row * p.out_stride + head * p.head_dim + threadIdx.x] =
        __float2bfloat16_rn(divided(state.output, state.sum));
    return;
  }
  __syncthreads();  // the record may have been a part
  float* const record = p.merged + size_t{blockIdx.x} * (p.head_dim + 2);
  if (threadIdx.x < p.head_dim) record[threadIdx.x] = state.output;
  if (threadIdx.x == 0) store_pair(record + p.head_dim, state.max, state.sum);
}

uint32_t merge_threads(uint32_t head_dim) {
  assert(head_dim <= kMaxThreads);
  return ceil_div(head_dim, 32u) * 32;
}

}  // namespace

void merge_tiles(CudaStream& stream, const AttentionArgs& args, const AttentionRecords& records,
                 uint32_t max_rows) {
  const MergeTilesParams p = {.records = records,
                              .sequences = args.sequences.device,
                              .out = args.out.as<bf16>(),
                              .out_stride = args.out.row_stride,
                              .num_heads = args.num_heads,
                              .head_dim = args.kv.head_dim,
                              .max_rows = max_rows};
  const dim3 grid(max_rows * args.num_heads, static_cast<uint32_t>(args.sequences.host.size()));
  launch(stream, grid, merge_threads(p.head_dim), 0, merge_sequence_tiles, p);
}

void cuda_merge_partials(Stream& base, std::span<const AttentionPartials> parts, uint32_t num_heads,
                         const Tensor& out) {
  assert(out.dtype == DType::kBF16 && out.cols % num_heads == 0);
  if (out.rows == 0) return;
  CudaStream& stream = cuda_stream(base);
  MergePartsParams p = {.num_heads = num_heads,
                        .head_dim = static_cast<uint32_t>(out.cols / num_heads),
                        .out_stride = out.row_stride};
  const uint32_t vectors = static_cast<uint32_t>(out.rows) * num_heads;
  const int64_t row_floats = int64_t{num_heads} * (p.head_dim + 2);
  for (const AttentionPartials& part : parts) {
    if (p.num_parts == kMaxParts) {
      // What is merged so far is the first part of the next launch: merged into nothing, a record
      // is itself.
      const size_t bytes = static_cast<size_t>(out.rows * row_floats) * sizeof(float);
      p.merged = reinterpret_cast<float*>(stream.scratch(CudaStream::Use::kAttention, bytes));
      launch(stream, vectors, merge_threads(p.head_dim), 0, merge_parts, p);
      p.parts[0] = {p.merged, row_floats, 1};
      p.num_parts = 1;
    }
    assert(part.records.rows == out.rows);
    p.parts[p.num_parts++] = {part.records.as<float>(), part.records.row_stride, part.num_tiles};
  }
  p.out = out.as<bf16>();
  launch(stream, vectors, merge_threads(p.head_dim), 0, merge_parts, p);
}

}  // namespace baton::ops
