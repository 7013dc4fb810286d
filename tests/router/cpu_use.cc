#include "tests/router/cpu_use.h"

#include <fstream>
#include <stdexcept>
#include <string>

namespace baton::router {

Processors::Processors(bool apart) {
  if (::sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) {
    throw std::runtime_error("cannot tell which processors there are");
  }
  if (!apart || CPU_COUNT(&allowed_) < 2) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed_)) measured_ = cpu;
  }
}

cpu_set_t Processors::others() const {
  cpu_set_t cpus = allowed_;
  if (measured_) CPU_CLR(*measured_, &cpus);
  return cpus;
}

void Processors::pin(bool measured) const {
  cpu_set_t cpus = others();
  if (measured_ && measured) {
    CPU_ZERO(&cpus);
    CPU_SET(*measured_, &cpus);
  }
  if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
    throw std::runtime_error("cannot choose a thread's processors");
  }
}

CpuUse cpu_use_of(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/schedstat");
  double ran_ns = 0, waited_ns = 0;
  if (!(file >> ran_ns >> waited_ns)) {
    throw std::runtime_error("the kernel does not tell how long a thread ran");
  }
  return {1e-9 * ran_ns, 1e-9 * waited_ns};
}

}  // namespace baton::router
