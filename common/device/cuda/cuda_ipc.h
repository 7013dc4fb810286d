#pragma once

#include <memory>

#include "common/base/result.h"
#include "common/device/memory_sharing.h"

namespace baton::device {

// CUDA IPC, for memory of the GPU that make_cuda_device() gave the same `index`. A GPU reads its
// own memory, and that of another which is its peer (over NVLink, or PCIe where the system lets
// it). A call that fails is an error, never the end of this process. kUnsupported where this build
// has no CUDA or the GPU cannot share its memory.
result<std::unique_ptr<MemorySharing>> make_cuda_ipc(int index);

}  // namespace baton::device
