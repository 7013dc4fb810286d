#pragma once

#include <string>
#include <string_view>

namespace baton::kvtransfer {

// Equal in two processes that can share memory: one kernel, one IPC and one pid namespace. Empty if
// the system does not say.
std::string host_identity();

// What a mapping of this process is made of: "posix" (a file of /dev/shm), "sysv", "private" or
// "?".
std::string_view memory_kind(const void* address);

}  // namespace baton::kvtransfer
