#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/device/cuda/cuda_status.h"
#include "common/device/cuda/cuda_stream.h"
#include "common/ops/cuda/element.cuh"
#include "common/ops/ops.h"

// What every kernel file here shares: launching, the handshake between kernels, small arithmetic.
//
// Kernels are launched so that the next one may start while one drains (programmatic dependent
// launch, on compute capability 9.0 and newer): every kernel calls wait_for_inputs() before it
// reads what another kernel wrote or writes anything at all; only weights may be touched before.
namespace baton::ops {

using device::CudaStream;

inline CudaStream& cuda_stream(Stream& stream) { return static_cast<CudaStream&>(stream); }

template <class T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Enqueues kernel<<<grid, block, shared_bytes>>>(args...). Beyond 48 KiB of shared memory the
// kernel must have been allowed it by allow_shared().
template <class... Params, class... Args>
void launch(CudaStream& stream, dim3 grid, dim3 block, size_t shared_bytes,
            void (*kernel)(Params...), Args&&... args) {
  cudaLaunchAttribute overlap;
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle();
  config.attrs = &overlap;
  config.numAttrs = stream.info().compute_major >= 9 ? 1 : 0;
  device::cuda_must(cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...),
                    "cudaLaunchKernelEx");
}

// Once a kernel and process (the attribute is the kernel's; setting it again is harmless).
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  device::cuda_must(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(bytes)),
                    "cudaFuncSetAttribute");
}

// All that was enqueued before has finished, and its writes are seen.
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
// The next kernel may start to set itself up. Says nothing of this one's writes.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, lane));
  return v;
}

// The start of a token's vector in a paged cache.
__device__ __forceinline__ std::byte* kv_vector(const PagedKv& kv, const BlockId* table,
                                                uint32_t plane, uint32_t head, uint32_t token) {
  const uint32_t block = table[token / kv.block_tokens].value;
  return kv.base + size_t{block} * kv.block_stride + plane * kv.plane_stride +
         head * kv.head_stride + (token % kv.block_tokens) * kv.token_stride;
}

}  // namespace baton::ops
