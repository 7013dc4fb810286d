#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdint>
#include <type_traits>

#include "common/base/dtype.h"

// The element types of kernels: float, and the halves bf16 and f16, of which a table of operations
// has one. Whatever differs between the two stands here; kernels are templates of the type.
//
// f16 ends at 65504. What an operation writes in f16 is rounded to nearest even, and what is larger
// in size becomes 65504 with its sign, infinity, too; NaN stays NaN. Only cuBLASLt's products leave
// infinities, and operations that read them take them for 65504. So an overflow is a value that is
// too small, never a NaN further down. Sums, scores and the residual stream are f32.
namespace baton::ops {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <class T>
inline constexpr bool kIsBF16 = std::is_same_v<T, bf16>;

// Calls run.operator()<the type>() for kBF16 or kF16.
template <class Run>
void with_half(DType dtype, const Run& run) {
  assert(dtype == DType::kBF16 || dtype == DType::kF16);
  if (dtype == DType::kF16) return run.template operator()<f16>();
  run.template operator()<bf16>();
}
// The same for kF32, too.
template <class Run>
void with_element(DType dtype, const Run& run) {
  if (dtype == DType::kF32) return run.template operator()<float>();
  with_half(dtype, run);
}

// Two halves in one register, `low` at the lower address.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  if constexpr (kIsBF16<T>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(both);
  } else {
    uint32_t both;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
  }
}

template <class T>
__device__ __forceinline__ void unpack(uint32_t both, float& low, float& high) {
  if constexpr (kIsBF16<T>) {  // the upper half of an f32
    low = __uint_as_float(both << 16);
    high = __uint_as_float(both & 0xffff0000u);
  } else {
    const __half2 most = __half2half2(__ushort_as_half(0x7bff));
    const __half2 pair = reinterpret_cast<const __half2&>(both);
    const float2 wide = __half22float2(__hmin2_nan(__hmax2_nan(pair, __hneg2(most)), most));
    low = wide.x;
    high = wide.y;
  }
}

__device__ __forceinline__ uint16_t bits_of(bf16 v) { return __bfloat16_as_ushort(v); }
__device__ __forceinline__ uint16_t bits_of(f16 v) { return __half_as_ushort(v); }

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float to_float(f16 v) {
  float low, high;
  unpack<f16>(__half_as_ushort(v), low, high);
  return low;
}

template <class T>
__device__ __forceinline__ T from_float(float v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else if constexpr (kIsBF16<T>) {
    return __float2bfloat16_rn(v);
  } else {
    return __ushort_as_half(static_cast<unsigned short>(pack<f16>(v, 0)));
  }
}

// d[16, 8] += a[16, 16] * b[16, 8] on the matrix units; sums in f32.
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
#define BATON_MULTIPLY_ADD(type)                                        \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type            \
      ".f32 "                                                           \
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                  \
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
  if constexpr (kIsBF16<T>) {
    BATON_MULTIPLY_ADD("bf16");
  } else {
    BATON_MULTIPLY_ADD("f16");
  }
#undef BATON_MULTIPLY_ADD
}

}  // namespace baton::ops
