#include "tests/router/own_network.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace baton::router {
namespace {

void check(bool good, const std::string& what) {
  if (!good) throw std::runtime_error("cannot " + what + ": " + std::strerror(errno));
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  check(file.good(), "write " + path);
}

void bring_up_loopback() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  ifreq lo{};
  std::strcpy(lo.ifr_name, "lo");
  lo.ifr_flags = IFF_UP;
  const bool up = fd >= 0 && ::ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
  ::close(fd);
  check(up, "bring up the loopback");
}

// As the kernel reads masks of processors: words of 32 in hexadecimal, the highest first.
std::string mask_of(const cpu_set_t& cpus) {
  std::ostringstream out;
  bool begun = false;
  for (int word = CPU_SETSIZE / 32; word-- > 0;) {
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= unsigned{CPU_ISSET(word * 32 + i, &cpus) != 0} << i;
    if (bits == 0 && !begun) continue;
    if (begun) out << ',';
    out << std::hex << bits;
    begun = true;
  }
  return out.str();
}

}  // namespace

std::string take_own_network(const Processors& processors) {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
    return std::string("the system's (no namespace: ") + std::strerror(errno) + ")";
  }
  bring_up_loopback();
  // The mount is of the network that its maker sees, and nobody else's.
  check(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "keep mounts apart");
  check(::mount("none", "/sys", "sysfs", 0, nullptr) == 0, "mount /sys");
  write_file("/sys/class/net/lo/queues/rx-0/rps_cpus", mask_of(processors.others()));
  write_file("/proc/sys/net/ipv4/tcp_congestion_control", "reno");
  return "own namespace, received by the other processors, Reno";
}

}  // namespace baton::router
