#include "tests/gpu/roof.h"

#include <cuda_runtime.h>

#include "common/device/cuda/cuda_status.h"
#include "common/device/cuda/cuda_stream.h"

namespace baton::gpu {
namespace {

constexpr int kThreads = 512;
constexpr int kAtOnce =
    4;  // loads of a thread under way: with all threads, 128 KiB a multiprocessor

// Reads each byte once, and moves nothing else. The sum keeps the loads; it is written where it is
// one value of 2^32, which the benchmark does not mind.
__global__ void __launch_bounds__(kThreads)
    read_once(const uint4* from, size_t count, uint32_t* out) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint32_t sum = 0;
  for (; i + (kAtOnce - 1) * step < count; i += kAtOnce * step) {
    uint4 v[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < count; i += step) {
    const uint4 v = __ldcs(from + i);
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x9e3779b9u) *out = sum;
}

}  // namespace

void enqueue_read(device::Stream& stream, const std::byte* from, size_t bytes, uint32_t way,
                  std::byte* out) {
  auto& cuda = static_cast<device::CudaStream&>(stream);
  const unsigned blocks = (2u << way) * static_cast<unsigned>(cuda.info().multiprocessors);
  read_once<<<blocks, kThreads, 0, cuda.handle()>>>(reinterpret_cast<const uint4*>(from),
                                                    bytes / sizeof(uint4),
                                                    reinterpret_cast<uint32_t*>(out));
  device::cuda_must(cudaGetLastError(), "read_once");
}

}  // namespace baton::gpu
