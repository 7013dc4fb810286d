#pragma once

#include <cudaTypedefs.h>

#include <algorithm>
#include <cstdint>

#include "common/device/cuda/cuda_status.h"
#include "common/ops/cuda/element.cuh"

// Thin names for the Hopper instructions (PTX ISA 8.0, sm_90a) that attention_wgmma.cu is made of.
//
// Operands in shared memory are panels: rows of 64 halves = 128 bytes, one under the other, as a
// tensor copy with 128-byte swizzle leaves them: the 16-byte chunk c of row r stands at chunk
// c ^ (r % 8). Eight rows (1024 bytes, so aligned) are one atom of that pattern.
//
// wgmma finds an operand by a descriptor: address, "leading" and "stride" byte offsets, all in
// units of 16 bytes, and the swizzle. What the offsets mean depends on the operand's direction:
//   K-major (Q and K: a row is a query or key, along it runs head_dim, the product's k): stride is
//     from eight rows to the next eight, 1024; leading is not used, as the 16 k of one instruction
//     stay inside a row. The next 16 k are 32 bytes on; the hardware swizzles the sum.
//   MN-major (V as B: a row is a token, which is the product's k; along it runs head_dim, its n):
//     leading is from one panel (64 of n) to the next, stride from eight tokens to the next eight,
//     1024. The next 16 k are 16 rows, 2048 bytes on.
namespace baton::ops::hopper {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- mbarriers, by their shared addresses

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After all barrier_init of a thread, before the block synchronizes.
__device__ __forceinline__ void barriers_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and lets the phase end only when `bytes` more have been copied.
__device__ __forceinline__ void barrier_arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Whether the phase of this parity is over, after a short wait; a new barrier counts as past its
// phase of parity 1.
__device__ __forceinline__ bool barrier_try(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over != 0;
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  while (!barrier_try(barrier, parity)) {
  }
}

// ---- Named barriers: of some warps of a block

__device__ __forceinline__ void named_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- Tensor maps, made by the host

// The driver's entry, asked for at run time: nothing links libcuda.
inline PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  device::cuda_must(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                     cudaEnableDefault, &found),
                    "cudaGetDriverEntryPointByVersion");
#else
  device::cuda_must(
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found),
      "cudaGetDriverEntryPoint");
#endif
  if (found != cudaDriverEntryPointSuccess) {
    device::cuda_must(cudaErrorSymbolNotFound, "cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
}

// Of halves T, innermost dimension first, swizzled as above; strides are bytes, of the outer
// dimensions.
template <class T, uint32_t kRank>
CUtensorMap make_tensor_map(const void* base, const cuuint64_t (&dims)[kRank],
                            const cuuint64_t (&strides)[kRank - 1],
                            const cuuint32_t (&box)[kRank]) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
  cuuint32_t steps[kRank];
  std::fill_n(steps, kRank, 1);
  CUtensorMap map;
  constexpr auto kType =
      kIsBF16<T> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUresult made =
      encode(&map, kType, kRank, const_cast<void*>(base), dims, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  device::cuda_must(made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue,
                    "cuTensorMapEncodeTiled");
  return map;
}

// ---- Tensor copies, by one thread; `bytes` of the box are counted on the barrier

__device__ __forceinline__ void tensor_prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void tensor_load(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                            uint32_t c0, uint32_t c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c0), "r"(c1)
      : "memory");
}
__device__ __forceinline__ void tensor_load(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                            uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                                            uint32_t c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
// What this thread wrote to shared memory is seen by copies and matrix units from here on.
__device__ __forceinline__ void publish_to_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- Registers moved between the warpgroups of a block

template <uint32_t kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <uint32_t kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- wgmma: four warps, 64 rows; warp w has rows 16w..16w+15
//
// Accumulators of lane l: d[4j + 2r + e] is row l / 4 + 8r, column 8j + 2 (l % 4) + e.
// A in registers (16 k): a[2h + r] is row l / 4 + 8r, columns 8h + 2 (l % 4) and the next, low half
// first: so a[i] of the k from 16s on is the pair d[8s + 2i], d[8s + 2i + 1] of a product before.

__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t leading_bytes,
                                               uint32_t stride_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return (address & 0x3ffff) >> 4 | uint64_t{leading_bytes >> 4} << 16 |
         uint64_t{stride_bytes >> 4} << 32 | kSwizzle128;
}
__device__ __forceinline__ uint64_t k_major(uint32_t address) {
  return descriptor(address, 16, 1024);
}
__device__ __forceinline__ uint64_t mn_major(uint32_t address, uint32_t panel_bytes) {
  return descriptor(address, panel_bytes, 1024);
}
// The operand `bytes` further on.
__device__ __forceinline__ uint64_t advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Before the first product and after registers of one have been touched.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// The compiler computes d before what follows, and not from what was before: it does not know when
// a product that runs writes its registers.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
// Until at most kPending groups run; `d`, of a finished one, may be read after it.
template <int kPending, int kCount>
__device__ __forceinline__ void wgmma_wait(float (&d)[kCount]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
  pin(d);
}

#define BATON_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BATON_D16(i) BATON_D4(i), BATON_D4(i + 4), BATON_D4(i + 8), BATON_D4(i + 12)

// Of halves T: `type` is what PTX calls them. Nothing converts between the two.
#define BATON_OF_TYPE(T, product) \
  if constexpr (kIsBF16<T>) {     \
    product("bf16");              \
  } else {                        \
    product("f16");               \
  }

// d[64, 128] (+)= A[64, 16] * B[128, 16]^T, both K-major.
template <class T, bool kAdd>
__device__ __forceinline__ void wgmma_k_k(float (&d)[64], uint64_t a, uint64_t b) {
#define BATON_PRODUCT(type)                                                               \
  asm volatile(                                                                           \
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"                                    \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                        \
      " "                                                                                 \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"            \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"  \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"  \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}," \
      " %64, %65, add, 1, 1, 0, 0;\n}"                                                    \
      : BATON_D16(0), BATON_D16(16), BATON_D16(32), BATON_D16(48)                         \
      : "l"(a), "l"(b), "n"(kAdd ? 1 : 0))
  BATON_OF_TYPE(T, BATON_PRODUCT)
#undef BATON_PRODUCT
}

// d[64, 128] += A[64, 16] * B[16, 128], A in registers, B MN-major.
template <class T>
__device__ __forceinline__ void wgmma_r_mn(float (&d)[64], const uint32_t* a, uint64_t b) {
#define BATON_PRODUCT(type)                                                               \
  asm volatile(                                                                           \
      "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                                      \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                        \
      " "                                                                                 \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"            \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"  \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"  \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}," \
      " {%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}"                                      \
      : BATON_D16(0), BATON_D16(16), BATON_D16(32), BATON_D16(48)                         \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  BATON_OF_TYPE(T, BATON_PRODUCT)
#undef BATON_PRODUCT
}

// d[64, 64] += A[64, 16] * B[16, 64], A in registers, B MN-major.
template <class T>
__device__ __forceinline__ void wgmma_r_mn(float (&d)[32], const uint32_t* a, uint64_t b) {
#define BATON_PRODUCT(type)                                                               \
  asm volatile(                                                                           \
      "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                                      \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                         \
      " "                                                                                 \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"            \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}," \
      " {%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}"                                      \
      : BATON_D16(0), BATON_D16(16)                                                       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  BATON_OF_TYPE(T, BATON_PRODUCT)
#undef BATON_PRODUCT
}

#undef BATON_OF_TYPE
#undef BATON_D16
#undef BATON_D4

}  // namespace baton::ops::hopper
