#pragma once

#include <cstddef>

#include "common/device/device.h"

namespace baton::device {

// Host memory, 64-byte aligned; big buffers are page-aligned and asked to be backed by huge pages
// (weights and cache are read at full bandwidth only so). Empty buffer if memory is short.
Buffer allocate_host(size_t bytes);

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
