#pragma once

#include <cmath>

#include "common/ops/cuda/kernel.cuh"

// The arithmetic of attention on the matrix units of compute capability 8.0 and newer, shared by
// the kernels that must agree in every bit. For a query vector, over each absolute tile of 256
// tokens from an empty state, in chunks of 64 tokens:
//   S = Q K^T, a chain of products over head_dim, 16 at a time; s = S * scale * log2(e), minus
//   infinity for tokens after its own; P = exp2(s - max), rounded to the
//   half that K and V are of; O and the sum of P are
//   rescaled, then gain P V and P 1, chains over tokens, 16 at a time.
// A head_dim that no kernel is made for is filled up with zeros to the next one.
// A chunk of which a vector sees nothing multiplies its state by 1 and adds 0. Tiles are merged in
// groups of kGroupTiles, again absolute: those of a group in their order, from an empty state, then
// the groups in theirs. Merged into an empty state a record is itself, so that of a group of one
// tile is the tile's, and the result of one group is the group's. Every operation that a compiler
// might fuse in one kernel and not in another is spelled out.
//
// Fragments of a product of 16 rows, lane l: accumulator d[2r + e] is row l / 4 + 8r, column
// 2 (l % 4) + e of 8. The operand from the left a[2h + r] is row l / 4 + 8r, columns
// 8h + 2 (l % 4) and the next, low half first; the one from the right b[h] is column l / 4, rows
// 8h + 2 (l % 4) and the next.
namespace baton::ops::attention {

constexpr uint32_t kChunk = 64;                            // tokens
constexpr uint32_t kTileChunks = kAttentionTile / kChunk;  // chunks of a tile
constexpr uint32_t kBlockThreads = 128;                    // of both kernels
constexpr uint32_t kHalfBytes = 2;
constexpr uint32_t kStepBytes = 16 * kHalfBytes;  // of head_dim, in one product
constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.693147180559945309417f;

// A chunk of K or V in shared memory: rows of head_dim, 16 bytes apart, so that the eight rows that
// a matrix load reads lie in different banks (head_dim is a multiple of 16).
template <uint32_t kHeadDim>
constexpr uint32_t kPitch = kHeadDim* kHalfBytes + 16;
template <uint32_t kHeadDim>
constexpr uint32_t kPlaneBytes = kChunk* kPitch<kHeadDim>;

__device__ __forceinline__ uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
// 16 bytes, zeros where there is nothing to read.
__device__ __forceinline__ void copy_16(uint32_t to, const std::byte* from, bool is_there) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(is_there ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most kPending of this thread's committed groups are on their way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Where a block reads one KV head of one sequence.
struct KvSource {
  const PagedKv& kv;
  const BlockId* table;
  uint32_t head;
  uint32_t block_shift;  // log2 of block_tokens
  uint32_t end;          // tokens from here on are not read: nobody may have written them

  // All four warps: tokens [first, first + kChunk) of K (plane 0) or V (plane 1). A warp copies 16
  // tokens, which are of one block, a row of head_dim after the other.
  template <uint32_t kHeadDim>
  __device__ __forceinline__ void copy(uint32_t plane, uint32_t first, uint32_t to) const {
    constexpr uint32_t kUnits = kHeadDim / 8;  // 16 bytes each, of a row
    const uint32_t lane = threadIdx.x % 32, skip = threadIdx.x / 32 * 16;
    const uint32_t token = first + skip;
    const uint32_t block = token < end ? table[token >> block_shift].value : 0;
    const std::byte* from = kv.base + size_t{block} * kv.block_stride + plane * kv.plane_stride +
                            head * kv.head_stride +
                            (token & ((1u << block_shift) - 1)) * kv.token_stride;
#pragma unroll
    for (uint32_t i = 0; i < kUnits / 2; ++i) {
      const uint32_t row = (lane + 32 * i) / kUnits, unit = (lane + 32 * i) % kUnits;
      copy_16(to + (skip + row) * kPitch<kHeadDim> + unit * 16,
              from + row * kv.token_stride + unit * 16,
              token + row < end && unit * 8 < kv.head_dim);
    }
  }
};

// ---- Products

__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  ops::multiply_add<T>(d, a[0], a[1], a[2], a[3], b0, b1);
}

// What a lane adds to the address of 16 tokens' rows, to load from there
// K of 16 tokens and 16 dimensions as two operands from the right, tokens being the columns,
__device__ __forceinline__ uint32_t key_offset(uint32_t pitch) {
  const uint32_t lane = threadIdx.x % 32;
  return (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 16;
}
// V of 16 tokens and 16 dimensions as two, dimensions being the columns (transposed), or P of 16
// rows and 16 tokens as one from the left.
__device__ __forceinline__ uint32_t row_offset(uint32_t pitch) {
  const uint32_t lane = threadIdx.x % 32;
  return lane % 16 * pitch + lane / 16 * 16;
}

// The operand of 16 query vectors; `rows` are this lane's two, null for zeros.
template <uint32_t kHeadDim, class T>
__device__ __forceinline__ void load_queries(uint32_t (&q)[kHeadDim / 16][4],
                                             const T* const (&rows)[2], uint32_t head_dim) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const T* const from = rows[r] + threadIdx.x % 4 * 2;
    const uint32_t end = rows[r] == nullptr ? 0 : head_dim;
    if (reinterpret_cast<uintptr_t>(from) % 4 == 0) {
#pragma unroll
      for (uint32_t i = 0; i < kHeadDim / 8; ++i) {
        q[i / 2][i % 2 * 2 + r] =
            8 * i < end ? *reinterpret_cast<const uint32_t*>(from + 8 * i) : 0;
      }
    } else {
#pragma unroll
      for (uint32_t i = 0; i < kHeadDim / 8; ++i) {
        const uint32_t low = 8 * i < end ? bits_of(from[8 * i]) : 0;
        const uint32_t high = 8 * i < end ? bits_of(from[8 * i + 1]) : 0;
        q[i / 2][i % 2 * 2 + r] = low | high << 16;
      }
    }
  }
}

// s = Q K^T over 16 * kPairs tokens; `keys`: their rows, plus key_offset().
template <class T, uint32_t kHeadDim, int kPairs>
__device__ __forceinline__ void multiply_keys(float (&s)[2 * kPairs][4],
                                              const uint32_t (&q)[kHeadDim / 16][4],
                                              uint32_t keys) {
#pragma unroll
  for (int j = 0; j < 2 * kPairs; ++j) {
#pragma unroll
    for (float& v : s[j]) v = 0;
  }
#pragma unroll
  for (uint32_t k = 0; k < kHeadDim / 16; ++k) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      uint32_t b[4];
      load_matrices(b, keys + i * 16 * kPitch<kHeadDim> + k * kStepBytes);
      multiply_add<T>(s[2 * i], q[k], b[0], b[1]);
      multiply_add<T>(s[2 * i + 1], q[k], b[2], b[3]);
    }
  }
}

// sum += P 1, o += P V for 16 tokens; `values`: their rows, plus row_offset(). Of head_dim in
// sixteens, o has those from `first` on, every kStep-th.
template <class T, uint32_t kHeadDim, int kPairs, uint32_t kStep>
__device__ __forceinline__ void multiply_values(float (&o)[2 * kPairs][4], float (&sum)[4],
                                                const uint32_t (&p)[4], uint32_t values,
                                                uint32_t first) {
  constexpr uint32_t kOnes = kIsBF16<T> ? 0x3f803f80 : 0x3c003c00;
  multiply_add<T>(sum, p, kOnes, kOnes);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const uint32_t at = first + i * kStep;
    if (kPairs * kStep > kHeadDim / 16 && at >= kHeadDim / 16) continue;
    uint32_t b[4];
    load_transposed(b, values + at * kStepBytes);
    multiply_add<T>(o[2 * i], p, b[0], b[1]);
    multiply_add<T>(o[2 * i + 1], p, b[2], b[3]);
  }
}

// ---- Softmax of a lane's two rows

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What a lane knows of its two rows and one tile. The sum is an accumulator: both columns of a row
// have it.
template <int kTiles>
struct TileState {
  float o[kTiles][4];
  float sum[4];
  float max[2];  // of the scores times log2(e)

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (float& v : o[j]) v = 0;
    }
#pragma unroll
    for (float& v : sum) v = 0;
    max[0] = max[1] = -INFINITY;
  }

  // Takes in the maxima of a chunk. `zero_at`: what to subtract from its scores; finite even where
  // nothing is seen yet, when minus infinity then becomes 0.
  __device__ __forceinline__ void rescale(const float (&chunk_max)[2], float (&zero_at)[2]) {
    float by[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float now = fmaxf(max[r], chunk_max[r]);
      zero_at[r] = now == -INFINITY ? 0.0f : now;
      by[r] = exp2_approx(__fsub_rn(max[r], zero_at[r]));
      max[r] = now;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[i] = __fmul_rn(sum[i], by[i / 2]);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) o[j][i] = __fmul_rn(o[j][i], by[i / 2]);
    }
  }
};

// s becomes scaled scores of which row r sees columns below seen[r]; `column` is of the lane's
// first. Their maxima are those over the tokens in s.
template <int kTiles>
__device__ __forceinline__ void scale_scores(float (&s)[kTiles][4], float scale_log2, int column,
                                             const int (&seen)[2], float (&max)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    max[r] = -INFINITY;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& v = s[j][2 * r + e];
        v = column + 8 * j + e < seen[r] ? __fmul_rn(v, scale_log2) : -INFINITY;
        max[r] = fmaxf(max[r], v);
      }
    }
    // Over the four lanes that share a row.
    max[r] = fmaxf(max[r], __shfl_xor_sync(0xffffffffu, max[r], 1));
    max[r] = fmaxf(max[r], __shfl_xor_sync(0xffffffffu, max[r], 2));
  }
}

// Scaled scores become exponentials, p[j][r] those of row r.
template <class T, int kTiles>
__device__ __forceinline__ void exponentiate(const float (&s)[kTiles][4], const float (&zero_at)[2],
                                             uint32_t (&p)[kTiles][2]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      p[j][r] = pack<T>(exp2_approx(__fsub_rn(s[j][2 * r], zero_at[r])),
                        exp2_approx(__fsub_rn(s[j][2 * r + 1], zero_at[r])));
    }
  }
}

// ---- Merging tiles, and groups

// A record's maximum is that of the scaled scores themselves.
__device__ __forceinline__ float natural(float max_log2) { return __fmul_rn(max_log2, kLn2); }

// A state gains a record. One whose sum is 0 is empty, and is to be left out.
struct MergeWeights {
  float max;   // afterwards
  float keep;  // the state's factor
  float gain;  // the record's
};
__device__ __forceinline__ MergeWeights merge_weights(float state_max, float record_max) {
  const float max = fmaxf(state_max, record_max);
  return {max, exp2_approx(__fmul_rn(__fsub_rn(state_max, max), kLog2E)),
          exp2_approx(__fmul_rn(__fsub_rn(record_max, max), kLog2E))};
}
__device__ __forceinline__ float merged(float state, float record, float keep, float gain) {
  return __fmaf_rn(record, gain, __fmul_rn(state, keep));
}
__device__ __forceinline__ float divided(float output, float sum) {
  return sum == 0.0f ? 0.0f : __fdiv_rn(output, sum);
}
// Minus zero becomes zero: which of the two a sum is depends on whether zeros were added to it.
__device__ __forceinline__ float unsigned_zero(float v) { return __fadd_rn(v, 0.0f); }

// What is merged so far of a lane's two rows, but for the outputs.
struct MergedRows {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};

  // What outputs take in of the record that was added last.
  struct Outputs {
    bool is_filled[2];
    float keep[2], gain[2];

    // `r` is the output's row.
    __device__ __forceinline__ void add(float& state, float record, int r) const {
      if (is_filled[r]) state = merged(state, unsigned_zero(record), keep[r], gain[r]);
    }
  };
  __device__ __forceinline__ Outputs add(const float (&record_max)[2],
                                         const float (&record_sum)[2]) {
    Outputs outputs;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const MergeWeights weights = merge_weights(max[r], record_max[r]);
      outputs.is_filled[r] = record_sum[r] != 0.0f;
      outputs.keep[r] = weights.keep;
      outputs.gain[r] = weights.gain;
      if (!outputs.is_filled[r]) continue;
      max[r] = weights.max;
      sum[r] = merged(sum[r], record_sum[r], weights.keep, weights.gain);
    }
    return outputs;
  }
  template <int kTiles>
  __device__ __forceinline__ Outputs add(const TileState<kTiles>& tile) {
    return add({natural(tile.max[0]), natural(tile.max[1])}, {tile.sum[0], tile.sum[2]});
  }
};

// Two neighbouring elements, at any address.
__device__ __forceinline__ void store_pair(float* to, float a, float b) {
  if (reinterpret_cast<uintptr_t>(to) % 8 == 0) {
    *reinterpret_cast<float2*>(to) = make_float2(a, b);
  } else {
    to[0] = a;
    to[1] = b;
  }
}
template <class T>
__device__ __forceinline__ void store_pair(T* to, float a, float b) {
  if (reinterpret_cast<uintptr_t>(to) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(to) = pack<T>(a, b);
  } else {
    to[0] = from_float<T>(a);
    to[1] = from_float<T>(b);
  }
}

}  // namespace baton::ops::attention
