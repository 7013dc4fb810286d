#include "kvtransfer/host_identity.h"

#include <unistd.h>

#include <fstream>

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

}  // namespace baton::kvtransfer
