#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "common/base/result.h"

namespace baton {

// What this process may still take, in bytes.
struct HostMemory {
  uint64_t machine = UINT64_MAX;  // the kernel's MemAvailable
  uint64_t cgroup = UINT64_MAX;   // of the tightest cgroup around it; file caches count as free
  uint64_t left() const { return std::min(machine, cgroup); }
};

// Reads it from /proc and /sys (cgroups of either version) below `root`. What cannot be read is no
// limit.
HostMemory read_host_memory(const std::filesystem::path& root = "/");

// Whether `what` may take so many bytes; kResourceExhausted with both numbers.
status check_room(std::string_view what, uint64_t bytes, const HostMemory& memory);

}  // namespace baton
