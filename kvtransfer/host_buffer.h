#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>

#include "common/base/result.h"

namespace baton::kvtransfer {

// Whether the host has room for so many bytes more.
using Room = std::function<status(uint64_t bytes)>;
status room_on_this_host(uint64_t bytes);

// Zeroes memory that nobody has touched yet; only now does the system have to find it. Gives up
// with the error of `room` once the rest does not fit any more: others take memory meanwhile, too,
// and the system has no error for it later, but ends a process.
status zero_fill(std::span<std::byte> memory, const Room& room = room_on_this_host);

// Asks for huge pages, which spare copies and attention their page walks; before the memory is
// first touched. Where the system offers none, nothing is changed.
void prefer_huge_pages(void* address, size_t bytes);

// Who uses a cache's memory beside its owner: nobody, or the other ranks of its worker, which are
// processes of this host that attach it (shared_segment.h).
enum class Sharing { kNone, kRanks };

struct FreeMemory {
  Sharing sharing = Sharing::kNone;
  void operator()(std::byte* p) const;
};
using HostBuffer = std::unique_ptr<std::byte, FreeMemory>;

// Page-aligned and zeroed; on huge pages where there are any. kResourceExhausted.
result<HostBuffer> allocate_host_buffer(size_t bytes, Sharing sharing);

}  // namespace baton::kvtransfer
