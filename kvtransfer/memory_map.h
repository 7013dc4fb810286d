#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

// How memory of this process is mapped, as the kernel says.
namespace baton::kvtransfer {

// What a mapping is made of: "posix" (a file of /dev/shm), "sysv", "private" or "?".
std::string_view memory_kind(const void* address);

// Readable bytes from `address` to the end of its mapping; 0 if nothing is mapped there. Memory
// that continues in a neighbouring mapping of the same object counts.
uint64_t mapped_bytes_from(const void* address);

// The number of the System V segment that is mapped from `address` on; -1: none is.
int64_t segment_number(const void* address);

}  // namespace baton::kvtransfer
