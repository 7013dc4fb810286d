#include "common/base/host_memory.h"

#include <fmt/format.h>

#include <fstream>
#include <optional>
#include <string>

namespace baton {
namespace {

namespace fs = std::filesystem;

std::optional<uint64_t> read_number(const fs::path& file) {
  uint64_t number = 0;
  if (std::ifstream(file) >> number) return number;
  return {};  // or "max"
}

// The number behind `key` in a file of "key number" lines; 0 if there is none.
uint64_t read_field(const fs::path& file, std::string_view key) {
  std::ifstream lines(file);
  std::string word;
  for (uint64_t number = 0; lines >> word >> number; lines.ignore(4096, '\n')) {
    if (word == key) return number;
  }
  return 0;
}

struct CgroupFiles {
  const char *max, *used, *inactive_cache, *active_cache;  // the latter two in memory.stat
};
constexpr CgroupFiles kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                                "total_inactive_file", "total_active_file"};
constexpr CgroupFiles kVersion2{"memory.max", "memory.current", "inactive_file", "active_file"};

uint64_t left_in(const fs::path& folder, const CgroupFiles& files) {
  const std::optional<uint64_t> max = read_number(folder / files.max);
  const std::optional<uint64_t> used = read_number(folder / files.used);
  if (!max || !used) return UINT64_MAX;
  const fs::path stat = folder / "memory.stat";
  const uint64_t cache =
      read_field(stat, files.inactive_cache) + read_field(stat, files.active_cache);
  const uint64_t held = *used - std::min(*used, cache);
  return *max - std::min(*max, held);
}

// Each cgroup from `path` up to the mount's root limits what is below it.
uint64_t left_up_from(const fs::path& mount, const std::string& path, const CgroupFiles& files) {
  uint64_t left = left_in(mount, files);
  fs::path folder = mount;
  for (const fs::path& part : fs::path(path).relative_path()) {
    folder /= part;
    left = std::min(left, left_in(folder, files));
  }
  return left;
}

// Lines are "0::/path" for version 2, "5:memory:/path" for version 1.
uint64_t left_in_cgroups(const fs::path& root) {
  const fs::path mount = root / "sys/fs/cgroup";
  uint64_t left = UINT64_MAX;
  std::ifstream lines(root / "proc/self/cgroup");
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) left = std::min(left, left_up_from(mount, path, kVersion2));
    if (controllers == "memory") {
      left = std::min(left, left_up_from(mount / "memory", path, kVersion1));
    }
  }
  return left;
}

double gib(uint64_t bytes) { return static_cast<double>(bytes) / (1u << 30); }

}  // namespace

HostMemory read_host_memory(const fs::path& root) {
  HostMemory memory{.cgroup = left_in_cgroups(root)};
  if (const uint64_t kib = read_field(root / "proc/meminfo", "MemAvailable:"); kib != 0) {
    memory.machine = kib << 10;
  }
  return memory;
}

status check_room(std::string_view what, uint64_t bytes, const HostMemory& memory) {
  if (bytes <= memory.left()) return {};
  return error(
      Errc::kResourceExhausted,
      fmt::format("{} takes {:.1f} GiB of memory, and {} has {:.1f} GiB left", what, gib(bytes),
                  memory.machine <= memory.cgroup ? "this machine" : "this cgroup",
                  gib(memory.left())));
}

}  // namespace baton
