#pragma once

#include <memory>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/device/memory_sharing.h"
#include "common/kvcache/kv_cache.h"
#include "common/ops/ops.h"
#include "kvtransfer/device_reads.h"

namespace baton::worker {

struct GpuReadsConfig {
  kvcache::KvCache cache;        // this worker's, in `memory`
  const device::Buffer& memory;  // a whole Device::allocate()'s
  device::Device& device;        // whose it is
  const ops::Ops& ops;           // with export_kv
  bool is_read = true;           // by peers
};

// Reads of peers' caches by the GPU's own copying: on a stream of their own, beside the model's,
// digested on the way. When a read has ended, what it wrote is there for all that is enqueued
// later. All that `config` refers to outlives the result. A GPU that
// faults while it reads is lost to the whole process, as with any other work (cuda_device.h).
// kResourceExhausted, kIo, kUnavailable.
result<std::unique_ptr<kvtransfer::DeviceReads>> make_gpu_reads(
    const GpuReadsConfig& config, std::unique_ptr<device::MemorySharing> sharing);

}  // namespace baton::worker
