#include "common/device/cuda/cuda_ipc.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "common/base/log.h"
#include "common/device/cuda/cuda_status.h"

namespace baton::device {
namespace {

// The failed call leaves its error behind for the next one to find.
status told(cudaError_t error, std::string_view call) {
  if (error != cudaSuccess) cudaGetLastError();
  return cuda_status(error, call);
}

// As nvidia-smi writes it.
std::string name_of(const cudaUUID_t& uuid) {
  std::string name = "GPU";
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) name += '-';
    name += fmt::format("{:02x}", static_cast<uint8_t>(uuid.bytes[i]));
  }
  return name;
}

void unmap(void* data, size_t) {
  // Nothing here can go wrong but what has gone wrong before, and the process goes on.
  if (const status closed = told(cudaIpcCloseMemHandle(data), "cudaIpcCloseMemHandle"); !closed) {
    LOG_WARN("a peer's memory stays mapped: {}", closed.error().message);
  }
}

cudaError_t find_in_driver(const char* symbol, void** function,
                           cudaDriverEntryPointQueryResult* found) {
#if CUDART_VERSION >= 12050
  constexpr unsigned kAsSince = 12000;  // CUDA 12.0
  return cudaGetDriverEntryPointByVersion(symbol, function, kAsSince, cudaEnableDefault, found);
#else
  return cudaGetDriverEntryPoint(symbol, function, cudaEnableDefault, found);
#endif
}

// Bytes from `data` to the end of its allocation, as the driver knows it; 0: it does not say. The
// function is CUDA's driver's, which is not linked but found at run time.
size_t mapped_bytes(void* data) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const status asked =
      told(find_in_driver("cuMemGetAddressRange", &function, &found), "cudaGetDriverEntryPoint");
  if (!asked || found != cudaDriverEntryPointSuccess || function == nullptr) return 0;
  using GetAddressRange = int(unsigned long long* base, size_t* bytes, unsigned long long address);
  unsigned long long base = 0;
  size_t bytes = 0;
  const auto address = reinterpret_cast<unsigned long long>(data);
  if (reinterpret_cast<GetAddressRange*>(function)(&base, &bytes, address) != 0) return 0;
  return bytes - (address - base);
}

class CudaIpc final : public MemorySharing {
 public:
  CudaIpc(int index, std::string name) : index_(index), name_(std::move(name)) {}

  const std::string& device() const override { return name_; }
  result<SharedMemory> share(const Buffer& memory) override;
  result<Buffer> map(const SharedMemory& theirs) override;

 private:
  const int index_;
  const std::string name_;
};

result<SharedMemory> CudaIpc::share(const Buffer& memory) {
  BATON_CHECK_OK(told(cudaSetDevice(index_), "cudaSetDevice"));
  cudaIpcMemHandle_t handle;
  BATON_CHECK_OK(told(cudaIpcGetMemHandle(&handle, memory.data()), "cudaIpcGetMemHandle"));
  return SharedMemory{name_, memory.bytes(),
                      std::string(reinterpret_cast<const char*>(&handle), sizeof handle)};
}

// The owner says how much there is; what the driver has mapped bounds what is read, or a wrong word
// would cost this process its context.
result<Buffer> CudaIpc::map(const SharedMemory& theirs) {
  cudaIpcMemHandle_t handle;
  if (theirs.key.size() != sizeof handle) {
    return error(Errc::kDataCorrupt, fmt::format("a CUDA IPC handle of {} bytes, not {}",
                                                 theirs.key.size(), sizeof handle));
  }
  std::memcpy(&handle, theirs.key.data(), sizeof handle);
  BATON_CHECK_OK(told(cudaSetDevice(index_), "cudaSetDevice"));
  void* data = nullptr;
  if (const status opened =
          told(cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess),
               "cudaIpcOpenMemHandle");
      !opened) {
    return error(Errc::kUnavailable, fmt::format("{} cannot map memory of {}: {}", name_,
                                                 theirs.device, opened.error().message));
  }
  Buffer mapped(data, theirs.bytes, unmap);
  const size_t there = mapped_bytes(data);
  if (there == 0) {
    LOG_WARN("the driver does not say how much memory of {} is mapped; its owner's word counts",
             theirs.device);
  } else if (there < theirs.bytes) {
    return error(Errc::kUnavailable, fmt::format("memory of {}: {} bytes of the {} it speaks of",
                                                 theirs.device, there, theirs.bytes));
  }
  return mapped;
}

}  // namespace

result<std::unique_ptr<MemorySharing>> make_cuda_ipc(int index) {
  cudaDeviceProp properties;
  BATON_CHECK_OK(told(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
  if (properties.unifiedAddressing == 0) {
    return error(Errc::kUnsupported, fmt::format("GPU {} has no unified addresses, which CUDA IPC "
                                                 "needs",
                                                 index));
  }
  return std::make_unique<CudaIpc>(index, name_of(properties.uuid));
}

}  // namespace baton::device
