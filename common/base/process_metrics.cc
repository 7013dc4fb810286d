#include "common/base/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace baton {
namespace {

double to_seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return to_seconds(usage.ru_utime) + to_seconds(usage.ru_stime);
}

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0, resident_pages = 0;
  statm >> pages >> resident_pages;
  return static_cast<double>(resident_pages) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  std::error_code ignored;
  const std::filesystem::directory_iterator all("/proc/self/fd", ignored);
  return static_cast<double>(std::distance(begin(all), end(all)));
}

double max_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

double unix_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

ProcessMetrics::ProcessMetrics(Metrics& m)
    : cpu_seconds_(m.counter("process_cpu_seconds_total", "CPU time of this process.")),
      resident_bytes_(m.gauge("process_resident_memory_bytes", "Memory of this process.")),
      open_descriptors_(m.gauge("process_open_fds", "Open file descriptors.")),
      max_descriptors_(m.gauge("process_max_fds", "File descriptors that may be open.")) {
  m.gauge("process_start_time_seconds", "When this process started, seconds since 1970.")
      .Set(unix_seconds());
}

void ProcessMetrics::update() {
  cpu_seconds_.Increment(cpu_seconds() - cpu_seconds_.Value());
  resident_bytes_.Set(resident_bytes());
  open_descriptors_.Set(open_descriptors());
  max_descriptors_.Set(max_descriptors());
}

}  // namespace baton
