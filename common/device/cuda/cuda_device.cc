#include "common/device/cuda/cuda_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <thread>

#include "common/device/cuda/cuda_status.h"
#include "common/device/cuda/cuda_stream.h"

namespace baton::device {
namespace {

constexpr int kOldestCompute = 80;  // bf16 matrix units, asynchronous copies to shared memory

double gib(size_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

void free_cuda(void* data, size_t) { cuda_must(cudaFree(data), "cudaFree"); }
void free_pinned(void* data, size_t) { cuda_must(cudaFreeHost(data), "cudaFreeHost"); }

// The failed call leaves its error behind for the next one to find.
status forget(cudaError_t error, std::string_view call) {
  if (error != cudaSuccess) cudaGetLastError();
  return cuda_status(error, call);
}

void unlock(void* data, size_t) { cuda_must(cudaHostUnregister(data), "cudaHostUnregister"); }

result<Buffer> cuda_lock_host(void* data, size_t bytes) {
  BATON_CHECK_OK(
      forget(cudaHostRegister(data, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped),
             fmt::format("cudaHostRegister of {} bytes", bytes)));
  return Buffer(data, bytes, unlock);
}

std::string describe(const CudaInfo& gpu) {
  return fmt::format("{}, {:.1f} GiB, compute capability {}.{}, {} multiprocessors", gpu.name,
                     gib(gpu.memory_bytes), gpu.compute_major, gpu.compute_minor,
                     gpu.multiprocessors);
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(CudaInfo cuda)
      : cuda_(std::move(cuda)),
        info_{.kind = "cuda",
              .runs_inline = false,
              .host_addressable = false,
              .captures = true,
              .threads = std::max(1u, std::thread::hardware_concurrency()),
              .description = describe(cuda_),
              .memory_bytes = cuda_.memory_bytes} {}

  const DeviceInfo& info() const override { return info_; }
  result<Buffer> allocate(size_t bytes) override {
    return on_this([&] { return allocate_cuda(bytes); });
  }
  result<Buffer> allocate_host(size_t bytes) override {
    return on_this([&] { return allocate_pinned(bytes); });
  }
  result<Buffer> lock_host(void* data, size_t bytes) override {
    return on_this([&] { return cuda_lock_host(data, bytes); });
  }
  std::unique_ptr<Stream> make_stream() override { return std::make_unique<CudaStream>(cuda_); }
  void enter_thread() override { cuda_must(cudaSetDevice(cuda_.index), "cudaSetDevice"); }
  void copy(Stream& stream, void* dst, const void* src, size_t bytes) override {
    if (bytes == 0) return;
    cuda_must(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault,
                              static_cast<CudaStream&>(stream).handle()),
              "cudaMemcpyAsync");
  }

 private:
  template <class F>
  auto on_this(F&& f) -> decltype(f()) {
    cuda_must(cudaSetDevice(cuda_.index), "cudaSetDevice");
    return f();
  }

  const CudaInfo cuda_;
  const DeviceInfo info_;
};

result<CudaInfo> read_info(int index) {
  cudaDeviceProp p;
  BATON_CHECK_OK(cuda_status(cudaGetDeviceProperties(&p, index), "cudaGetDeviceProperties"));
  if (p.major * 10 + p.minor < kOldestCompute) {
    return error(Errc::kUnsupported,
                 fmt::format("GPU {} is a {} of compute capability {}.{}; Baton needs 8.0 (Ampere) "
                             "or newer",
                             index, p.name, p.major, p.minor));
  }
  return CudaInfo{.index = index,
                  .multiprocessors = p.multiProcessorCount,
                  .compute_major = p.major,
                  .compute_minor = p.minor,
                  .memory_bytes = p.totalGlobalMem,
                  .l2_bytes = static_cast<size_t>(p.l2CacheSize),
                  .shared_bytes = p.sharedMemPerBlockOptin,
                  .name = p.name};
}

}  // namespace

result<Buffer> allocate_cuda(size_t bytes) {
  void* data = nullptr;
  const cudaError_t made = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (made == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    BATON_CHECK_OK(forget(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
    return error(Errc::kResourceExhausted,
                 fmt::format("{:.1f} GiB are wanted of a GPU that has {:.1f} GiB left", gib(bytes),
                             gib(free)));
  }
  BATON_CHECK_OK(forget(made, fmt::format("cudaMalloc of {} bytes", bytes)));
  return Buffer(data, bytes, free_cuda);
}

result<Buffer> allocate_pinned(size_t bytes) {
  void* data = nullptr;
  BATON_CHECK_OK(forget(cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocPortable),
                        fmt::format("cudaHostAlloc of {} bytes", bytes)));
  return Buffer(data, bytes, free_pinned);
}

result<int> count_cuda_devices() {
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted == cudaSuccess) return count;
  return error(Errc::kUnavailable,
               fmt::format("no usable NVIDIA GPU or driver on this machine: {} ({})",
                           cudaGetErrorString(counted), cudaGetErrorName(counted)));
}

void* native_stream(Stream& stream) { return static_cast<CudaStream&>(stream).handle(); }

result<std::unique_ptr<Device>> make_cuda_device(int index) {
  BATON_TRY(const int count, count_cuda_devices());
  if (index < 0 || index >= count) {
    return error(Errc::kUnavailable,
                 fmt::format("GPU {} was asked for, but this machine has {}", index, count));
  }
  BATON_TRY(CudaInfo info, read_info(index));
  // Creates the context, which is where a GPU in a bad state shows.
  BATON_CHECK_OK(cuda_status(cudaSetDevice(index), "cudaSetDevice"));
  BATON_CHECK_OK(cuda_status(cudaFree(nullptr), "cudaFree at start-up"));
  return std::make_unique<CudaDevice>(std::move(info));
}

}  // namespace baton::device
