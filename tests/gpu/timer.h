#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/device/device.h"

namespace baton::gpu {

// Seconds; of several measurements.
struct Spread {
  double median = 0, least = 0, most = 0;
};
Spread spread_of(std::vector<double> values);

// Enqueues the i-th of some calls of the same work. What they read differs, so that no cache holds
// it from call to call.
using Enqueue = std::function<void(uint32_t i)>;

// Seconds of one call on the GPU: some calls are recorded as a graph, which is launched `repeats`
// times between two events. Each graph's launch itself is in it, divided by the calls.
Spread time_recorded(device::Stream& stream, uint32_t repeats, const Enqueue& enqueue);

// Seconds of one call between two events, called as it is: where the host is slower than the GPU,
// that shows. The work may synchronize and record graphs of its own.
Spread time_called(device::Stream& stream, uint32_t repeats, const Enqueue& enqueue);

struct GpuFacts {
  std::string name;
  int multiprocessors = 0, compute_major = 0, compute_minor = 0;
  int driver_version = 0, runtime_version = 0;  // as CUDA numbers them: 13000 is 13.0
  size_t memory_bytes = 0, l2_bytes = 0;
};
GpuFacts gpu_facts();
size_t free_memory_bytes();

}  // namespace baton::gpu
