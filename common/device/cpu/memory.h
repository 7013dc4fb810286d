#pragma once

#include <cstddef>
#include <mutex>

#include "common/device/device.h"

namespace baton::device {

// Host memory, 64-byte aligned; big buffers are page-aligned and asked to be backed by huge pages
// (weights and cache are read at full bandwidth only so). Empty buffer if memory is short.
Buffer allocate_host(size_t bytes);

// Gives many middle-sized buffers (a layer's weights) a share of common huge pages, which
// allocate_host could not use for them. A slab is returned to the system when the last of its
// buffers is gone; buffers may outlive the arena. Thread-safe.
class HostArena {
 public:
  HostArena() = default;
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  Buffer allocate(size_t bytes);  // as allocate_host

 private:
  struct Slab;
  static void release(Slab* slab);
  static void free_shared(void* data, size_t bytes);

  std::mutex mutex_;
  Slab* slab_ = nullptr;  // the one that is being filled
  size_t used_ = 0;       // bytes of it
};

// Memory that one thread reuses from operation to operation. It grows to the largest request and
// then allocates no more; contents are lost when it grows. Not thread-safe.
class Scratch {
 public:
  // At least `count` elements, 64-byte aligned, valid until the next call. Aborts if memory is
  // short: an operation has no way to fail.
  template <class T>
  T* get(size_t count) {
    return reinterpret_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  std::byte* reserve(size_t bytes);

  Buffer buffer_;
};

}  // namespace baton::device
