#pragma once

#include <cstddef>
#include <cstdint>

#include "common/device/device.h"

// What this GPU can do at most, by kernels that do nothing else.
namespace baton::gpu {

// Ways to read (blocks at a time), of which the fastest is the roof.
inline constexpr uint32_t kReadWays = 4;

// Enqueues a kernel that reads `bytes` once, in the given way. `out`: 4 bytes of device memory.
void enqueue_read(device::Stream& stream, const std::byte* from, size_t bytes, uint32_t way,
                  std::byte* out);

}  // namespace baton::gpu
