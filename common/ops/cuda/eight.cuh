#pragma once

#include "common/ops/cuda/kernel.cuh"

// Eight neighbouring elements of a row at a time: what elementwise kernels read and write a thread.
// Accesses are of 16 bytes where the address allows, element by element where it does not (odd
// strides, tails), so that any shape works and the usual ones move at the memory's speed. Which of
// the two it is never shows in a result.
namespace baton::ops {

struct Eight {
  float v[8];
};

__device__ __forceinline__ bool is_aligned_16(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

// One store to global memory: the compiler at times splits an assignment into four.
__device__ __forceinline__ void store_16(void* p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ Eight load_aligned_eight(const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
template <class T>
__device__ __forceinline__ Eight load_aligned_eight(const T* p) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
  Eight e;
#pragma unroll
  for (int i = 0; i < 4; ++i) unpack<T>(pairs[i], e.v[2 * i], e.v[2 * i + 1]);
  return e;
}

__device__ __forceinline__ void store_aligned_eight(const Eight& e, float* p) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    store_16(p + i, __float_as_uint(e.v[i]), __float_as_uint(e.v[i + 1]),
             __float_as_uint(e.v[i + 2]), __float_as_uint(e.v[i + 3]));
  }
}
template <class T>
__device__ __forceinline__ void store_aligned_eight(const Eight& e, T* p) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = pack<T>(e.v[2 * i], e.v[2 * i + 1]);
  store_16(p, pairs[0], pairs[1], pairs[2], pairs[3]);
}

// p[0..count), count at most 8; zeros behind.
template <class T>
__device__ __forceinline__ Eight load_eight(const T* p, int64_t count = 8) {
  if (count >= 8 && is_aligned_16(p)) return load_aligned_eight(p);
  Eight e;
#pragma unroll
  for (int i = 0; i < 8; ++i) e.v[i] = i < count ? to_float(p[i]) : 0.0f;
  return e;
}

// Eight from each of two places. Both are on their way before either is looked at, which a branch
// for each would not allow.
template <class T>
__device__ __forceinline__ void load_two_eights(const T* p, const T* q, Eight& a, Eight& b,
                                                int64_t count = 8) {
  if (count >= 8 && is_aligned_16(p) && is_aligned_16(q)) {
    a = load_aligned_eight(p);
    b = load_aligned_eight(q);
  } else {
    a = load_eight(p, count);
    b = load_eight(q, count);
  }
}

template <class T>
__device__ __forceinline__ void store_eight(const Eight& e, T* p, int64_t count = 8) {
  if (count >= 8 && is_aligned_16(p)) return store_aligned_eight(e, p);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < count) p[i] = from_float<T>(e.v[i]);
  }
}

}  // namespace baton::ops
