#include "common/device/cpu/memory.h"

#include <sys/mman.h>

#include <cstdlib>

#include "common/base/log.h"

namespace baton::device {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

Buffer allocate_host(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
  const size_t size = round_up(bytes == 0 ? 1 : bytes, alignment);
  if (size < bytes) return {};
  void* data = std::aligned_alloc(alignment, size);
  if (data == nullptr) return {};
  if (alignment == kHugePage) madvise(data, size, MADV_HUGEPAGE);  // a wish: may be refused
  return Buffer(data, bytes, [](void* p, size_t) { std::free(p); });
}

std::byte* Scratch::reserve(size_t bytes) {
  if (bytes > buffer_.bytes() || buffer_.data() == nullptr) {
    buffer_ = allocate_host(bytes);
    if (buffer_.data() == nullptr) {
      LOG_ERROR("out of memory: {} bytes of scratch", bytes);
      std::abort();
    }
  }
  return buffer_.data();
}

}  // namespace baton::device
