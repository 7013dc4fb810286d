#pragma once

#include "common/ops/cuda/kernel.cuh"

// Passes of one thread block over one row of logits, [vocab]. A NaN counts as minus infinity.
namespace baton::ops {

inline constexpr int kRowThreads = 1024;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ float minus_infinity() { return -__int_as_float(0x7f800000); }
__device__ __forceinline__ bool is_finite(float v) { return fabsf(v) < -minus_infinity(); }

// Calls f(value, id) for each logit. All threads call it equally often, so that it may vote: behind
// the end they pass minus infinity and an id that is not below `vocab`. A block reads 4 * vocab
// bytes, eight loads a thread on their way at once: what one multiprocessor gets from L2 is the
// roof.
template <class F>
__device__ __forceinline__ void for_each_logit(const float* x, uint32_t vocab, F&& f) {
  constexpr uint32_t kAtOnce = 8;
  for (uint32_t begin = threadIdx.x; begin - threadIdx.x < vocab; begin += kAtOnce * kRowThreads) {
    float v[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint32_t id = begin + i * kRowThreads;
      v[i] = id < vocab ? x[id] : minus_infinity();
    }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      f(v[i] == v[i] ? v[i] : minus_infinity(), begin + i * kRowThreads);
    }
  }
}

// The block's values put together, in every thread, always in the same order. `shared`: a value a
// warp, free again on return.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T v, T* shared, Op&& op) {
  static_assert(kRowThreads == 32 * 32);
  for (int round = 0; round < 2; ++round) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) v = op(v, __shfl_xor_sync(kAllLanes, v, lane));
    if (round == 1) break;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = shared[threadIdx.x % 32];
  }
  __syncthreads();
  return v;
}

template <class T>
__device__ __forceinline__ T block_sum(T v, T* shared) {
  return block_reduce(v, shared, [](T a, T b) { return a + b; });
}

// Tokens are ordered by keys: a value's bits, so turned that they grow with it, above the inverted
// id, so that of equals the lower id is the greater. No key is 0.
__device__ __forceinline__ uint64_t make_key(uint32_t value, uint32_t id) {
  return uint64_t{value} << 32 | ~id;
}
__device__ __forceinline__ TokenId token_of(uint64_t key) {
  return static_cast<TokenId>(~static_cast<uint32_t>(key));
}
__device__ __forceinline__ uint64_t logit_key(float v, uint32_t id) {
  const uint32_t bits = __float_as_uint(v + 0.0f);  // the zeros are equal
  return make_key(bits & 0x80000000u ? ~bits : bits | 0x80000000u, id);
}
__device__ __forceinline__ float logit_of(uint64_t key) {
  const auto high = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(high & 0x80000000u ? high & 0x7fffffffu : ~high);
}

// The greatest key of the row, in every thread.
__device__ __forceinline__ uint64_t row_max(const float* x, uint32_t vocab, uint64_t* shared) {
  float best = minus_infinity();
  uint32_t best_id = threadIdx.x;
  for_each_logit(x, vocab, [&](float v, uint32_t id) {
    if (v > best) {
      best = v;
      best_id = id;
    }
  });
  return block_reduce(logit_key(best, best_id), shared,
                      [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}

// Sum of e^(x[i] - max), in every thread; max is finite.
__device__ __forceinline__ float row_sum_exp(const float* x, uint32_t vocab, float max,
                                             float* shared) {
  float sum = 0;
  for_each_logit(x, vocab, [&](float v, uint32_t) { sum += expf(v - max); });
  return block_sum(sum, shared);
}

}  // namespace baton::ops
