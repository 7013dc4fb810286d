// In place of cuda_device.cc in builds without CUDA.
#include "common/device/cuda/cuda_device.h"

namespace baton::device {

result<std::unique_ptr<Device>> make_cuda_device(int) {
  return error(Errc::kUnsupported,
               "this build has no CUDA; build the preset 'cuda', which needs NVIDIA's nvcc");
}

}  // namespace baton::device
