#include "common/device/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "common/base/log.h"

namespace baton::device {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void free_small(void* data, size_t) { std::free(data); }
void free_big(void* data, size_t bytes) { munmap(data, round_up(bytes, kHugePage)); }

// Whole huge pages: maps one more than needed and gives back what sticks out.
Buffer map_big(size_t bytes) {
  const size_t size = round_up(bytes, kHugePage);
  if (size < bytes || size + kHugePage < size) return {};
  void* mapped =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return {};
  auto* begin = static_cast<std::byte*>(mapped);
  const size_t before =
      round_up(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (before > 0) munmap(begin, before);
  munmap(begin + before + size, kHugePage - before);
  madvise(begin + before, size, MADV_HUGEPAGE);  // a wish: may be refused
  return Buffer(begin + before, bytes, free_big);
}

}  // namespace

Buffer allocate_host(size_t bytes) {
  if (bytes >= kHugePage) return map_big(bytes);
  void* data = std::aligned_alloc(kCacheLine, round_up(std::max<size_t>(bytes, 1), kCacheLine));
  return data == nullptr ? Buffer() : Buffer(data, bytes, free_small);
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
