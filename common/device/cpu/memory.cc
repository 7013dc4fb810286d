#include "common/device/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "common/base/log.h"

namespace baton::device {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// Of an arena: a quarter of a slab at most, so that little of it is left over.
constexpr size_t kSlabBytes = size_t{32} << 20;
constexpr size_t kSmallest = size_t{64} << 10;

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

// At the head of the mapping, before the buffers. Each buffer has a pointer to it in the cache line
// in front of its data.
struct HostArena::Slab {
  Buffer memory;                 // this very mapping
  std::atomic<size_t> users{1};  // the arena while it fills it, and the buffers
};

HostArena::~HostArena() { release(slab_); }

Buffer HostArena::allocate(size_t bytes) {
  if (bytes < kSmallest || bytes > kSlabBytes / 4) return allocate_host(bytes);
  const size_t needed = kCacheLine + round_up(bytes, kCacheLine);
  const std::lock_guard lock(mutex_);
  if (slab_ == nullptr || used_ + needed > kSlabBytes) {
    Buffer memory = map_big(kSlabBytes);
    if (memory.data() == nullptr) return {};
    release(slab_);
    slab_ = new (memory.data()) Slab;
    slab_->memory = std::move(memory);
    used_ = round_up(sizeof(Slab), kCacheLine);
  }
  std::byte* data = reinterpret_cast<std::byte*>(slab_) + used_ + kCacheLine;
  std::memcpy(data - kCacheLine, &slab_, sizeof(slab_));
  slab_->users.fetch_add(1);
  used_ += needed;
  return Buffer(data, bytes, free_shared);
}

void HostArena::release(Slab* slab) {
  if (slab == nullptr || slab->users.fetch_sub(1) > 1) return;
  const Buffer memory = std::move(slab->memory);  // lives on until the slab has ended
  slab->~Slab();
}

void HostArena::free_shared(void* data, size_t) {
  Slab* slab;
  std::memcpy(&slab, static_cast<std::byte*>(data) - kCacheLine, sizeof(slab));
  release(slab);
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
