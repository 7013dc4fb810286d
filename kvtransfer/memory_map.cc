#include "kvtransfer/memory_map.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace baton::kvtransfer {
namespace {

struct Mapping {
  uintptr_t begin = 0, end = 0;
  std::string rights, object, name;  // object: the device and inode that it shows
  int64_t inode = 0;
};

// Calls each(mapping), by address, until it says false.
template <class Each>
void for_each_mapping(const Each& each) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    Mapping m;
    char dash = 0;
    std::string offset, device, inode;
    fields >> std::hex >> m.begin >> dash >> m.end >> m.rights >> offset >> device >> inode >>
        m.name;
    m.object = device + '/' + inode;
    m.inode = std::strtoll(inode.c_str(), nullptr, 10);
    if (!each(m)) return;
  }
}

}  // namespace

std::string_view memory_kind(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  std::string_view kind = "?";
  for_each_mapping([&](const Mapping& m) {
    if (at < m.begin || at >= m.end) return true;
    kind = m.name.starts_with("/SYSV")                  ? "sysv"
           : m.rights.ends_with('s') && !m.name.empty() ? "posix"
                                                        : "private";
    return false;
  });
  return kind;
}

uint64_t mapped_bytes_from(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  uintptr_t end = at;
  std::string object;
  for_each_mapping([&](const Mapping& m) {
    if (m.end <= at) return true;
    const bool first = end == at;
    if (first ? m.begin > at : m.begin != end || m.object != object) return false;
    if (!m.rights.starts_with('r')) return false;
    object = m.object;
    end = m.end;
    return true;
  });
  return end - at;
}

// The kernel shows a segment's number as its inode (proc(5)).
int64_t segment_number(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  int64_t number = -1;
  for_each_mapping([&](const Mapping& m) {
    if (m.begin < at) return true;
    if (m.begin == at && m.name.starts_with("/SYSV")) number = m.inode;
    return false;
  });
  return number;
}

}  // namespace baton::kvtransfer
