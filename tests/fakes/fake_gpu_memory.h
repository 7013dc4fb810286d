#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "common/device/device.h"

namespace baton::device {

// Says what was done wrong and aborts: a GPU would go on with garbage, or fall.
[[noreturn]] void fake_gpu_dies(const std::string& why);

// The memory of a fake GPU. What it allocates has addresses that lead nowhere: a host that follows
// one crashes, also after it was freed. Behind each stands real memory, full of 0xff at first,
// which operations are given in its place. Knows the host memory that the device may touch, too.
// Thread-safe; lives until the last buffer is gone.
class FakeGpuMemory : public std::enable_shared_from_this<FakeGpuMemory> {
 public:
  FakeGpuMemory() = default;
  ~FakeGpuMemory();
  FakeGpuMemory(const FakeGpuMemory&) = delete;
  FakeGpuMemory& operator=(const FakeGpuMemory&) = delete;

  Buffer allocate(size_t bytes);
  Buffer allocate_host(size_t bytes);
  Buffer lock_host(void* data, size_t bytes);  // its data() is not `data`: nobody is to use it

  // Where `bytes` from `address` really are. Dies unless they lie in one piece of the device's
  // memory, or of host memory that it may touch.
  void* real(const void* address, size_t bytes) const;
  // The same for copies, which take any host memory.
  void* real_or_host(const void* address, size_t bytes) const;
  bool is_device(const void* address) const;

 private:
  struct Owner;  // what a Buffer's memory belongs to
  struct Range {
    size_t bytes = 0;
    std::byte* real = nullptr;
    bool on_device = false;
    Buffer memory;  // which has it; empty where it is somebody else's
  };

  void add(void* address, Range range);
  void remove(uintptr_t begin);
  const Range* find(uintptr_t address, uintptr_t* begin) const;  // holds mutex_
  static void release(Owner* owner);

  mutable std::mutex mutex_;
  std::map<uintptr_t, Range> ranges_;  // by their first address
  std::vector<std::pair<void*, size_t>> mapped_;
};

}  // namespace baton::device
