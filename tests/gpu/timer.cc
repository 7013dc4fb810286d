#include "tests/gpu/timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "common/device/cuda/cuda_status.h"
#include "common/device/cuda/cuda_stream.h"

namespace baton::gpu {
namespace {

using device::cuda_must;

constexpr double kRepeatSeconds = 4e-3;  // of work between two events
constexpr uint32_t kMostCalls = 64, kFewestCalls = 4;

class EventTimer {
 public:
  explicit EventTimer(device::Stream& stream)
      : stream_(static_cast<device::CudaStream&>(stream).handle()) {
    cuda_must(cudaEventCreate(&begin_), "cudaEventCreate");
    cuda_must(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~EventTimer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  EventTimer(const EventTimer&) = delete;
  EventTimer& operator=(const EventTimer&) = delete;

  template <class F>
  double seconds(F&& work) {
    cuda_must(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    work();
    cuda_must(cudaEventRecord(end_, stream_), "cudaEventRecord");
    cuda_must(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float ms = 0;
    cuda_must(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// How many calls fill a measurement; runs some, which also warms up.
uint32_t calls_of(EventTimer& timer, const Enqueue& enqueue) {
  enqueue(0);
  const double each = timer.seconds([&] {
    for (uint32_t i = 1; i < 3; ++i) enqueue(i);
  }) / 2;
  return std::clamp(static_cast<uint32_t>(kRepeatSeconds / std::max(each, 1e-7)), kFewestCalls,
                    kMostCalls);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

Spread time_recorded(device::Stream& stream, uint32_t repeats, const Enqueue& enqueue) {
  EventTimer timer(stream);
  const uint32_t calls = calls_of(timer, enqueue);
  stream.begin_capture();
  for (uint32_t i = 0; i < calls; ++i) enqueue(i);
  const auto graph = stream.end_capture();
  if (graph == nullptr) throw std::runtime_error("the work could not be recorded");
  stream.launch(*graph);
  stream.synchronize();
  std::vector<double> seconds;
  for (uint32_t r = 0; r < repeats; ++r) {
    seconds.push_back(timer.seconds([&] { stream.launch(*graph); }) / calls);
  }
  return spread_of(std::move(seconds));
}

Spread time_called(device::Stream& stream, uint32_t repeats, const Enqueue& enqueue) {
  EventTimer timer(stream);
  const uint32_t calls = calls_of(timer, enqueue);
  std::vector<double> seconds;
  for (uint32_t r = 0; r < repeats; ++r) {
    seconds.push_back(timer.seconds([&] {
      for (uint32_t i = 0; i < calls; ++i) enqueue(i);
    }) / calls);
  }
  return spread_of(std::move(seconds));
}

GpuFacts gpu_facts() {
  GpuFacts f;
  cudaDeviceProp p;
  cuda_must(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  f.name = p.name;
  f.multiprocessors = p.multiProcessorCount;
  f.compute_major = p.major;
  f.compute_minor = p.minor;
  f.memory_bytes = p.totalGlobalMem;
  f.l2_bytes = static_cast<size_t>(p.l2CacheSize);
  cuda_must(cudaDriverGetVersion(&f.driver_version), "cudaDriverGetVersion");
  cuda_must(cudaRuntimeGetVersion(&f.runtime_version), "cudaRuntimeGetVersion");
  return f;
}

size_t free_memory_bytes() {
  size_t free = 0, total = 0;
  cuda_must(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

}  // namespace baton::gpu
