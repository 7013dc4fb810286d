#include "tests/fakes/fake_gpu_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "common/device/cpu/memory.h"

namespace baton::device {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHostHead = 64;  // in front of host memory, for its owner

}  // namespace

void fake_gpu_dies(const std::string& why) {
  std::fprintf(stderr, "fake GPU: %s\n", why.c_str());
  std::abort();
}

struct FakeGpuMemory::Owner {
  std::shared_ptr<FakeGpuMemory> memory;
  uintptr_t begin = 0;
};

FakeGpuMemory::~FakeGpuMemory() {
  for (const auto& [data, bytes] : mapped_) munmap(data, bytes);
}

void FakeGpuMemory::add(void* address, Range range) {
  if (range.memory.data() != nullptr) std::memset(range.memory.data(), 0xff, range.memory.bytes());
  const std::lock_guard lock(mutex_);
  ranges_[reinterpret_cast<uintptr_t>(address)] = std::move(range);
}

void FakeGpuMemory::remove(uintptr_t begin) {
  const std::lock_guard lock(mutex_);
  ranges_.erase(begin);
}

void FakeGpuMemory::release(Owner* owner) {
  owner->memory->remove(owner->begin);
  const std::shared_ptr<FakeGpuMemory> last = std::move(owner->memory);  // outlives the owner
  owner->~Owner();
}

// A page for the owner, then pages that nobody may touch. They stay mapped, so that an address is
// never that of another buffer later.
Buffer FakeGpuMemory::allocate(size_t bytes) {
  const size_t size = kPage + std::max((bytes + kPage - 1) / kPage, size_t{1}) * kPage;
  void* mapped = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED || mprotect(mapped, kPage, PROT_READ | PROT_WRITE) != 0) {
    fake_gpu_dies("no addresses are left");
  }
  std::byte* const address = static_cast<std::byte*>(mapped) + kPage;
  new (mapped) Owner{shared_from_this(), reinterpret_cast<uintptr_t>(address)};
  Buffer memory = device::allocate_host(bytes);
  std::byte* const real = memory.data();
  add(address, {bytes, real, true, std::move(memory)});
  {
    const std::lock_guard lock(mutex_);
    mapped_.emplace_back(mapped, size);
  }
  return Buffer(address, bytes, [](void* data, size_t) {
    release(reinterpret_cast<Owner*>(static_cast<std::byte*>(data) - kPage));
  });
}

Buffer FakeGpuMemory::allocate_host(size_t bytes) {
  Buffer memory = device::allocate_host(kHostHead + bytes);
  std::byte* const head = memory.data();
  std::byte* const data = head + kHostHead;
  add(data, {bytes, data, false, std::move(memory)});
  new (head) Owner{shared_from_this(), reinterpret_cast<uintptr_t>(data)};
  return Buffer(data, bytes, [](void* d, size_t) {
    // The range has the memory that the owner stands in.
    Owner owner = std::move(*reinterpret_cast<Owner*>(static_cast<std::byte*>(d) - kHostHead));
    owner.memory->remove(owner.begin);
  });
}

Buffer FakeGpuMemory::lock_host(void* data, size_t bytes) {
  add(data, {bytes, static_cast<std::byte*>(data), false, {}});
  auto* owner = new Owner{shared_from_this(), reinterpret_cast<uintptr_t>(data)};
  return Buffer(owner, bytes, [](void* o, size_t) {
    release(static_cast<Owner*>(o));
    ::operator delete(o);
  });
}

const FakeGpuMemory::Range* FakeGpuMemory::find(uintptr_t address, uintptr_t* begin) const {
  auto at = ranges_.upper_bound(address);
  if (at == ranges_.begin()) return nullptr;
  --at;
  if (address >= at->first + std::max(at->second.bytes, size_t{1})) return nullptr;
  *begin = at->first;
  return &at->second;
}

void* FakeGpuMemory::real(const void* address, size_t bytes) const {
  if (bytes == 0) return const_cast<void*>(address);
  const auto a = reinterpret_cast<uintptr_t>(address);
  uintptr_t begin = 0;
  const std::lock_guard lock(mutex_);
  const Range* range = find(a, &begin);
  if (range == nullptr) {
    fake_gpu_dies(address == nullptr ? "a null pointer"
                                     : "memory that was freed, or that it may not touch");
  }
  const size_t offset = a - begin;
  if (bytes > range->bytes - offset) {
    fake_gpu_dies(std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                  std::to_string(range->bytes));
  }
  return range->real + offset;
}

void* FakeGpuMemory::real_or_host(const void* address, size_t bytes) const {
  const auto a = reinterpret_cast<uintptr_t>(address);
  {
    const std::lock_guard lock(mutex_);
    uintptr_t begin = 0;
    const bool is_ours = std::any_of(mapped_.begin(), mapped_.end(), [a](const auto& mapped) {
      const auto first = reinterpret_cast<uintptr_t>(mapped.first);
      return a >= first && a < first + mapped.second;
    });
    if (!is_ours && find(a, &begin) == nullptr) return const_cast<void*>(address);
  }
  return real(address, bytes);
}

bool FakeGpuMemory::is_device(const void* address) const {
  uintptr_t begin = 0;
  const std::lock_guard lock(mutex_);
  const Range* range = find(reinterpret_cast<uintptr_t>(address), &begin);
  return range != nullptr && range->on_device;
}

}  // namespace baton::device
