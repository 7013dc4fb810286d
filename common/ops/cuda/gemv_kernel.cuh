#pragma once

#include "common/ops/cuda/gemv.h"
#include "common/ops/cuda/kernel.cuh"

// The kernel of gemv.cu.
//
// A block makes a few tiles of outputs; a tile is 8 or 16 rows of w. k is cut into chunks of 64
// elements; warp i has the chunks i, i + warps, ... of every row. One chunk of one tile is a unit,
// 128 bytes a row: each warp streams its units through its own ring in shared memory, kStages ahead
// (of up to 2 KiB; 8 warps: 96 KiB on their way or waiting), with no barrier before the end. Two
// blocks fit on a multiprocessor of Hopper: while one starts or ends, the loads of the other, or of
// the next kernel's first one, keep the memory busy. The first units are called for before the
// kernels ahead have finished: nobody writes weights.
//
// Products are mma.m16n8k16: 16 rows of w times 8 rows of x. The order of k inside a product is
// free as long as w and x agree: lane (g, t) = (lane / 4, lane % 4) feeds from eight neighbouring
// elements of a row, 16 bytes of w and 16 of x, the k's 2t, 2t+1, 2t+8, 2t+9 of two products.
//
// The order of a sum follows from k alone: a warp's chunks in order, then the warps in order. What
// stands in the other rows of a product, or is zero there, shows in no bit of a row.
namespace baton::ops::gemv_detail {

constexpr int kChunk = 64;
constexpr int kPieces = kChunk / 8;  // of 16 bytes, of a row in a unit
constexpr int kStages = 6;
constexpr int kMaxWarps = 8;
constexpr int kMaxTiles = 4;      // of a block
constexpr int kColumnPitch = 20;  // floats: 16 rows of a tile, spaced so that no bank is hit twice

// 16 bytes to shared memory; if not `valid`, zeros, and global is not looked at.
__device__ __forceinline__ void copy_async(uint4* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All groups of this thread but the last kPending have arrived.
template <int kPending>
__device__ __forceinline__ void wait_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// A tile has 8 * kHalves rows of w; with kSilu 8 of gate, then the same 8 of up.
template <int kHalves, bool kSilu>
struct Tiling {
  static_assert(!kSilu || kHalves == 2);
  static constexpr int kColumns = kSilu ? 8 : 8 * kHalves;  // of out, that a tile makes
  __host__ __device__ static int64_t columns(const GemvArgs& a) { return kSilu ? a.n / 2 : a.n; }
};

// A warp's units, from memory to its registers, chunk by chunk and in a chunk tile by tile. Starts
// loading at once.
template <class T, int kHalves, bool kSilu>
class WeightStream {
 public:
  static constexpr int kUnit = 8 * kHalves * kPieces;  // uint4s

  __device__ __forceinline__ WeightStream(const GemvArgs& a, uint4* ring, int64_t first_tile,
                                          int tiles)
      : k_(static_cast<int>(a.k)),
        tiles_(tiles),
        half_(kSilu ? a.n / 2 * a.k : 8 * a.k),
        ring_(ring + threadIdx.x / 32 * kStages * kUnit),
        at_(static_cast<int>(threadIdx.x / 32) * kChunk + lane_piece() * 8) {
    const int64_t row = first_tile * kColumns + lane_row();
    left_ = static_cast<int>(min(Tiling<kHalves, kSilu>::columns(a) - row, int64_t{1} << 20));
    first_ = static_cast<const T*>(a.w) + row * a.k;
    from_ = first_ + at_;
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) fill(stage);
  }

  // The next unit: w's rows g and g + 8, the pieces t and t + 4 of each. In its place another is
  // called for.
  __device__ __forceinline__ void next(uint4 (&upper)[2], uint4 (&lower)[2]) {
    wait_groups<kStages - 1>();
    __syncwarp();  // the other lanes' pieces as well
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint4* row = ring_ + stage_ * kUnit + g * kPieces;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int piece = (j * 4 + t) ^ swizzle(g);
      upper[j] = row[piece];
      lower[j] = kHalves == 2 ? row[8 * kPieces + piece] : uint4{};
    }
    __syncwarp();  // all have read
    fill(stage_);
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
  }

 private:
  static constexpr int kColumns = Tiling<kHalves, kSilu>::kColumns;

  // Every other row has its two halves of 64 bytes the other way round: then the eight lanes that
  // read at a time, four pieces of two rows, hit every bank once.
  __device__ static int swizzle(int row) { return row % 2 * 4; }
  // Eight lanes load a row's 128 bytes, a warp four rows at a time.
  __device__ static int lane_row() { return threadIdx.x % 32 / 8; }
  __device__ static int lane_piece() { return threadIdx.x % 8; }

  __device__ __forceinline__ void fill(int stage) {
    if (at_ - lane_piece() * 8 < k_) {
      uint4* to =
          ring_ + stage * kUnit + lane_row() * kPieces + (lane_piece() ^ swizzle(lane_row()));
#pragma unroll
      for (int i = 0; i < 2 * kHalves; ++i) {
        const int row = i % 2 * 4, half = i / 2;  // beyond the lane's first row
        const int column = tile_ * kColumns + row + (kSilu ? 0 : half * 8);
        copy_async(to + i * 4 * kPieces, from_ + int64_t{row} * k_ + half * half_,
                   at_ < k_ && column < left_);
      }
      from_ += int64_t{kColumns} * k_;
      if (++tile_ == tiles_) {
        tile_ = 0;
        at_ += static_cast<int>(blockDim.x / 32) * kChunk;
        from_ = first_ + at_;
      }
    }
    end_group();  // an empty one behind the end: the count stays right
  }

  const int k_, tiles_;
  const int64_t half_;  // elements from a tile's first 8 rows to its others
  uint4* const ring_;
  const T* first_;  // the lane's first row
  int left_;        // columns of out from there to the end
  // To be called for next: k of the lane's piece, the tile, the address of both.
  int at_, tile_ = 0;
  const T* from_;
  int stage_ = 0;  // to be read next
};

// 1 / sqrt(mean(norm_x^2) + eps) of the rows g, g + 8, in rms_norm's order: there, threads have the
// eights t, t + threads, ...; a warp here does the work of every so many of those warps.
template <int kXTiles>
__device__ void norm_scales(const GemvArgs& a, float (&scales)[kXTiles]) {
  __shared__ float of_warp[kMaxGemvRows][32];
  const int lane = threadIdx.x % 32;
  const int64_t eights = a.k / 8, needed = (eights + 31) / 32;
  const int norm_warps = static_cast<int>(needed < 32 ? needed : 32);
  for (int row = 0; row < a.m; ++row) {
    const float* x = a.norm_x + row * a.x_stride;
    for (int w = threadIdx.x / 32; w < norm_warps; w += blockDim.x / 32) {
      float sum = 0;
      for (int64_t e = w * 32 + lane; e < eights; e += norm_warps * 32) {
        const float4 p = reinterpret_cast<const float4*>(x)[2 * e];
        const float4 q = reinterpret_cast<const float4*>(x)[2 * e + 1];
        const float v[8] = {p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(v[i], v[i], sum);
      }
      sum = warp_sum(sum);
      if (lane == 0) of_warp[row][w] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kXTiles; ++i) scales[i] = 0;
  for (int row = 0; row < a.m; ++row) {
    const float sum = warp_sum(lane < norm_warps ? of_warp[row][lane] : 0.0f);
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(a.k) + a.norm_eps);
#pragma unroll
    for (int i = 0; i < kXTiles; ++i) scales[i] = lane / 4 + i * 8 == row ? scale : scales[i];
  }
}

template <class T>
__device__ __forceinline__ uint32_t normed_pair(float x0, float x1, float scale, float w0,
                                                float w1) {
  return pack<T>(x0 * scale * w0, x1 * scale * w1);
}

// What one chunk needs of x: rows g, g + 8; the pieces t and t + 4 of each.
template <class T, int kXTiles, bool kNorm>
struct Inputs {
  uint4 v[kXTiles][2];

  __device__ __forceinline__ void load(const GemvArgs& a, int chunk,
                                       const float (&scales)[kXTiles]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < kXTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = g + i * 8;
        const int64_t at = int64_t{chunk} * kChunk + (j * 4 + t) * 8;
        v[i][j] = uint4{};
        if (row >= a.m || at >= a.k) continue;
        if constexpr (kNorm) {
          const auto* x = reinterpret_cast<const float4*>(a.norm_x + row * a.x_stride + at);
          const auto* w = reinterpret_cast<const float4*>(a.norm_weight + at);
          const float4 x0 = x[0], x1 = x[1], w0 = w[0], w1 = w[1];
          v[i][j].x = normed_pair<T>(x0.x, x0.y, scales[i], w0.x, w0.y);
          v[i][j].y = normed_pair<T>(x0.z, x0.w, scales[i], w0.z, w0.w);
          v[i][j].z = normed_pair<T>(x1.x, x1.y, scales[i], w1.x, w1.y);
          v[i][j].w = normed_pair<T>(x1.z, x1.w, scales[i], w1.z, w1.w);
        } else {
          v[i][j] =
              *reinterpret_cast<const uint4*>(static_cast<const T*>(a.x) + row * a.x_stride + at);
        }
      }
    }
  }
};

// The four products of a unit with 8 * kXTiles rows of x.
template <class T, int kXTiles, bool kNorm>
__device__ __forceinline__ void multiply_unit(float (&sums)[kXTiles][4], const uint4 (&upper)[2],
                                              const uint4 (&lower)[2],
                                              const Inputs<T, kXTiles, kNorm>& x) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int h = 0; h < 4; h += 2) {
#pragma unroll
      for (int i = 0; i < kXTiles; ++i) {
        multiply_add<T>(sums[i], word(upper[j], h), word(lower[j], h), word(upper[j], h + 1),
                        word(lower[j], h + 1), word(x.v[i][j], h), word(x.v[i][j], h + 1));
      }
    }
  }
}

// Partial sums of a block in shared memory: [tile][warp][row of x][row of w].
template <int kXTiles>
__device__ __forceinline__ int partial_at(int tile, int warp, int x_row, int w_row) {
  const int warps = static_cast<int>(blockDim.x / 32);
  return ((tile * warps + warp) * kXTiles * 8 + x_row) * kColumnPitch + w_row;
}

template <int kXTiles>
__device__ __forceinline__ void put_partial(float* partials, int tile,
                                            const float (&sums)[kXTiles][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < kXTiles; ++i) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int x_row = i * 8 + 2 * t + e % 2, w_row = g + e / 2 * 8;
      partials[partial_at<kXTiles>(tile, static_cast<int>(threadIdx.x / 32), x_row, w_row)] =
          sums[i][e];
    }
  }
}

// The warps' partial sums in their order, and the bias.
template <int kXTiles>
__device__ __forceinline__ float total(const GemvArgs& a, const float* partials, int tile,
                                       int x_row, int w_row, int64_t n) {
  float sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) {
    sum += partials[partial_at<kXTiles>(tile, warp, x_row, w_row)];
  }
  return a.bias == nullptr ? sum : sum + a.bias[n];
}

template <class T>
__device__ __forceinline__ void put(const GemvArgs& a, int64_t at, float v) {
  if (a.out_f32) {
    float* out = static_cast<float*>(a.out) + at;
    *out = a.accumulate ? v + *out : v;
  } else {
    T* out = static_cast<T*>(a.out) + at;
    *out = from_float<T>(a.accumulate ? v + to_float(*out) : v);
  }
}

template <class T>
__device__ __forceinline__ float rounded(float v) {
  return to_float(from_float<T>(v));
}

template <class T, int kHalves, int kXTiles, bool kSilu>
__device__ __forceinline__ void write_outputs(const GemvArgs& a, const float* partials,
                                              int64_t first_tile, int tiles) {
  using Tiles = Tiling<kHalves, kSilu>;
  const int columns = tiles * Tiles::kColumns, all = static_cast<int>(a.m) * columns;
  for (int e = threadIdx.x; e < all; e += blockDim.x) {
    const int x_row = e / columns, c = e % columns;
    const int tile = c / Tiles::kColumns, w_row = c % Tiles::kColumns;
    const int64_t n = first_tile * Tiles::kColumns + c, end = Tiles::columns(a);
    if (n >= end) continue;
    float v = total<kXTiles>(a, partials, tile, x_row, w_row, n);
    if constexpr (kSilu) {
      const float gate = rounded<T>(v);
      const float up = rounded<T>(total<kXTiles>(a, partials, tile, x_row, w_row + 8, end + n));
      v = __fdividef(gate, 1.0f + __expf(-gate)) * up;  // as silu_mul.cu has it
    }
    put<T>(a, x_row * a.out_stride + n, v);
  }
}

// x [m, k], w [n, k] -> out [m, n] (kSilu: [m, n / 2]) for m up to 8 * kXTiles; `a` has the rest.
// Reads 2 * n * k bytes of w once, which is the roof (m up to 16: at most 16 FLOP a byte), and in
// each block 2 * m * k of x (kNorm: twice 4 * m * k, and 4 * k), from L2.
// The bound of 320 threads, of which 256 are used, keeps registers for a next kernel's blocks.
template <class T, int kHalves, int kXTiles, bool kSilu, bool kNorm>
__global__ void __launch_bounds__(kXTiles == 1 ? 320 : 256, 2)
    gemv_kernel(const __grid_constant__ GemvArgs a, int tiles_per_block) {
  using Tiles = Tiling<kHalves, kSilu>;
  constexpr int kAhead = kXTiles == 1 && !kNorm ? 4 : 2;  // chunks of x in registers
  extern __shared__ __align__(128) uint4 ring[];          // of each warp; at last partial sums
  const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
  const int chunks = static_cast<int>((a.k + kChunk - 1) / kChunk);
  const int64_t first_tile = int64_t{blockIdx.x} * tiles_per_block;
  const int64_t left = (Tiles::columns(a) + Tiles::kColumns - 1) / Tiles::kColumns - first_tile;
  const int tiles = static_cast<int>(left < tiles_per_block ? left : tiles_per_block);

  WeightStream<T, kHalves, kSilu> weights(a, ring, first_tile, tiles);
  let_next_start();
  wait_for_inputs();

  float scales[kXTiles] = {};
  if constexpr (kNorm) norm_scales(a, scales);
  Inputs<T, kXTiles, kNorm> x[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) x[i].load(a, warp + i * warps, scales);
  float sums[kMaxTiles][kXTiles][4] = {};
  for (int first = warp; first < chunks; first += kAhead * warps) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int chunk = first + i * warps;
      if (chunk >= chunks) break;
#pragma unroll
      for (int tile = 0; tile < kMaxTiles; ++tile) {
        if (tile >= tiles) break;
        uint4 upper[2], lower[2];
        weights.next(upper, lower);
        multiply_unit(sums[tile], upper, lower, x[i]);
      }
      x[i].load(a, chunk + kAhead * warps, scales);
    }
  }
  __syncthreads();  // the rings are empty, and become the partial sums
  auto* partials = reinterpret_cast<float*>(ring);
#pragma unroll
  for (int tile = 0; tile < kMaxTiles; ++tile) {
    if (tile < tiles) put_partial<kXTiles>(partials, tile, sums[tile]);
  }
  __syncthreads();
  write_outputs<T, kHalves, kXTiles, kSilu>(a, partials, first_tile, tiles);
}

}  // namespace baton::ops::gemv_detail
