#pragma once

#include <cstddef>
#include <string>

#include "common/base/result.h"
#include "common/device/device.h"

namespace baton::device {

// Memory of a device that other processes of this host may map.
struct SharedMemory {
  std::string device;  // whose it is: unique, whatever a process calls it
  size_t bytes = 0;
  std::string key;  // opaque to all but map()
};

// How processes of one host read each other's memory of devices. Used by one thread at a time, the
// one that made the device.
class MemorySharing {
 public:
  virtual ~MemorySharing() = default;
  virtual const std::string& device() const = 0;  // as SharedMemory::device
  // `memory` is a whole Device::allocate()'s. Who frees it while others have it mapped leaves them
  // with what CUDA does not define: they believe nothing of it without a digest.
  virtual result<SharedMemory> share(const Buffer& memory) = 0;
  // Blocks for milliseconds. Read only, though the device could write; destroying the result ends
  // the mapping, before which all that reads it has ended. What is mapped stays when its owner
  // dies. kUnavailable where it cannot be mapped here: its owner is this process or gone, or there
  // is no way between the two devices.
  virtual result<Buffer> map(const SharedMemory& theirs) = 0;
};

}  // namespace baton::device
