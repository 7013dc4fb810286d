#include "kvtransfer/host_identity.h"

#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>

namespace baton::kvtransfer {
namespace {

std::string read_link(const char* path) {
  char buffer[256];
  const ssize_t n = ::readlink(path, buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::string();
}

}  // namespace

std::string host_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  const std::string ipc = read_link("/proc/self/ns/ipc"), pid = read_link("/proc/self/ns/pid");
  if (boot.empty() || ipc.empty() || pid.empty()) return {};
  return boot + '/' + ipc + '/' + pid;
}

std::string_view memory_kind(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::string rights, offset, device, inode, name;
    fields >> std::hex >> begin >> dash >> end >> rights >> offset >> device >> inode >> name;
    if (at < begin || at >= end) continue;
    if (name.starts_with("/SYSV")) return "sysv";
    if (rights.ends_with('s') && !name.empty()) return "posix";
    return "private";
  }
  return "?";
}

}  // namespace baton::kvtransfer
