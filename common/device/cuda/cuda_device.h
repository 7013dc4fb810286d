#pragma once

#include <memory>

#include "common/base/result.h"
#include "common/device/device.h"

namespace baton::device {

// GPU number `index` of those that CUDA shows (CUDA_VISIBLE_DEVICES chooses and orders them) as a
// device. Blocks while the driver starts, which takes about a second. kUnsupported where this build
// has no CUDA or the GPU is too old, kUnavailable where there is no driver or no such GPU; each is
// one sentence for people.
//
// Memory is cudaMalloc's, never a pool's: CUDA IPC exports no other. Streams run behind the host.
// A CUDA call that fails once the device works (a kernel's bad access, a fallen GPU) leaves nothing
// to go on with: it is logged with the call's name, and the process aborts.
result<std::unique_ptr<Device>> make_cuda_device(int index);

// How many there are. Errors as above.
result<int> count_cuda_devices();

// The cudaStream_t of a stream of such a device.
void* native_stream(Stream& stream);

}  // namespace baton::device
