#include "kvtransfer/host_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "common/base/host_memory.h"
#include "kvtransfer/shared_segment.h"

namespace baton::kvtransfer {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2u << 20;
constexpr size_t kSlice = 64u << 20;  // filled in some 20 ms

}  // namespace

status room_on_this_host(uint64_t bytes) {
  return check_room("what is left to fill of the KV cache", bytes, read_host_memory());
}

void prefer_huge_pages(void* address, size_t bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address) / page * page;
  const size_t length = reinterpret_cast<uintptr_t>(address) + bytes - begin;
  (void)::madvise(reinterpret_cast<void*>(begin), length, MADV_HUGEPAGE);
}

status zero_fill(std::span<std::byte> memory, const Room& room) {
  while (!memory.empty()) {
    if (memory.size() > kSlice) BATON_CHECK_OK(room(memory.size()));
    const size_t slice = std::min(kSlice, memory.size());
    std::memset(memory.data(), 0, slice);
    memory = memory.subspan(slice);
  }
  return {};
}

void FreeMemory::operator()(std::byte* p) const {
  if (sharing == Sharing::kRanks) {
    (void)::shmdt(p);
  } else {
    std::free(p);
  }
}

result<HostBuffer> allocate_host_buffer(size_t bytes, Sharing sharing) {
  if (sharing == Sharing::kRanks) {
    BATON_TRY(std::byte* const segment, make_segment(bytes));
    HostBuffer buffer(segment, {sharing});
    prefer_huge_pages(segment, bytes);
    BATON_CHECK_OK(zero_fill({segment, bytes}));
    return buffer;
  }
  const size_t align = bytes < kHugePage ? kPage : kHugePage;
  const size_t rounded = (bytes + align - 1) / align * align;
  HostBuffer buffer;
  if (rounded >= bytes) buffer.reset(static_cast<std::byte*>(std::aligned_alloc(align, rounded)));
  if (!buffer) {
    return error(Errc::kResourceExhausted,
                 fmt::format("the system gives no {} bytes of memory", bytes));
  }
  prefer_huge_pages(buffer.get(), rounded);
  BATON_CHECK_OK(zero_fill({buffer.get(), rounded}));
  return buffer;
}

}  // namespace baton::kvtransfer
