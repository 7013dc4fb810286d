// In place of cuda_device.cc and cuda_ipc.cc in builds without CUDA.
#include "common/device/cuda/cuda_device.h"
#include "common/device/cuda/cuda_ipc.h"

namespace baton::device {
namespace {

Error absent() {
  return error(Errc::kUnsupported,
               "this build has no CUDA; build the preset 'cuda', which needs NVIDIA's nvcc");
}

}  // namespace

result<std::unique_ptr<Device>> make_cuda_device(int) { return absent(); }
result<int> count_cuda_devices() { return absent(); }
void* native_stream(Stream&) { return nullptr; }
result<std::unique_ptr<MemorySharing>> make_cuda_ipc(int) { return absent(); }

}  // namespace baton::device
