#include "doctor/host.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace baton::doctor {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFewDescriptors = 4096;
constexpr double kGib = 1 << 30;

std::string read_line(const fs::path& file) {
  std::string line;
  std::ifstream in(file);
  std::getline(in, line);
  return line;
}

std::string read_cpu(const fs::path& root) {
  std::ifstream in(root / "proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "an unknown CPU";
}

// "150000 100000": microseconds of each period, or "max 100000".
double quota_in(const fs::path& folder) {
  std::istringstream in(read_line(folder / "cpu.max"));
  double quota = 0, period = 0;
  return in >> quota >> period && period > 0 ? quota / period : 0;
}

// Of the tightest cgroup (version 2) around this process; its line is "0::/path".
double read_quota(const fs::path& root) {
  std::string own;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::/")) own = line.substr(4);
  }
  fs::path folder = root / "sys/fs/cgroup";
  double least = quota_in(folder);
  for (const fs::path& part : fs::path(own)) {
    folder /= part;
    const double quota = quota_in(folder);
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
  }
  return least;
}

// "always [madvise] never": the one in force.
std::string read_huge_pages(const fs::path& root) {
  const std::string line = read_line(root / "sys/kernel/mm/transparent_hugepage/enabled");
  const size_t begin = line.find('['), end = line.find(']');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return line.substr(begin + 1, end - begin - 1);
}

uint64_t read_limit(decltype(RLIMIT_NOFILE) which) {
  rlimit limit{};
  if (::getrlimit(which, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

std::string gib(uint64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / kGib);
}

void judge_cores(const HostFacts& f, const Wanted& w, Report& report) {
  std::string found = fmt::format("{}, {} cores", f.cpu, f.cores);
  if (f.quota_cores > 0) found += fmt::format(", of which a cgroup allows {:.1f}", f.quota_cores);
  const double usable = f.quota_cores > 0 ? std::min<double>(f.quota_cores, f.cores) : f.cores;
  if (w.device == "cpu" && w.threads > usable) {
    report.warn("CPU", fmt::format("{}; {} threads are to compute", found, w.threads),
                "take fewer --threads: those without a core wait for the others in every step");
  } else if (usable < 2) {
    report.warn("CPU", found,
                "give each worker a core beside those that it computes on: hand-offs wait else");
  } else {
    report.fine("CPU", found);
  }
}

void judge_memory(const HostFacts& f, const Wanted& w, Report& report) {
  const uint64_t wanted = w.weight_bytes + w.kv_bytes, left = f.memory.left();
  const std::string room = left == UINT64_MAX ? "an unknown amount" : gib(left);
  if (left < wanted) {
    report.fail("memory",
                fmt::format("{} left, and weights and KV cache take {}", room, gib(wanted)),
                f.memory.cgroup < f.memory.machine
                    ? "raise the cgroup's limit (Kubernetes: resources.limits.memory), or lower "
                      "--kv-gib"
                    : "lower --kv-gib, or use a machine with more");
  } else if (wanted > 0) {
    report.fine("memory", fmt::format("{} left; weights and KV cache take {}", room, gib(wanted)));
  } else {
    report.fine("memory", room + " left");
  }
}

void judge_shared_memory(const HostFacts& f, const Wanted& w, Report& report) {
  if (f.largest_segment >= w.kv_bytes) {
    report.fine("shared memory", "a System V segment holds the whole KV cache");
  } else if (f.shm_free >= w.kv_bytes) {
    report.note("shared memory",
                fmt::format("System V segments hold {} at most, so the KV cache goes into a file "
                            "of /dev/shm, which has {}",
                            gib(f.largest_segment), gib(f.shm_free)));
  } else {
    report.fail("shared memory",
                fmt::format("a segment holds {}, /dev/shm {}, and the KV cache takes {}",
                            gib(f.largest_segment), gib(f.shm_free), gib(w.kv_bytes)),
                "raise kernel.shmmax, or /dev/shm (Kubernetes: an emptyDir of medium Memory); "
                "else workers of one host read each other over TCP");
  }
}

void judge_limits(const HostFacts& f, const Wanted& w, Report& report) {
  if (f.descriptors < kFewDescriptors) {
    report.warn("descriptors", fmt::format("{} may be open", f.descriptors),
                fmt::format("raise it to {} or more (ulimit -n): each client and each worker is "
                            "one",
                            kFewDescriptors));
  } else {
    report.fine("descriptors", f.descriptors == UINT64_MAX
                                   ? std::string("as many as wanted")
                                   : fmt::format("{} may be open", f.descriptors));
  }
  const bool needs_locked = w.device == "cuda" || !f.rdma_cards.empty();
  const std::string locked = f.locked_memory == UINT64_MAX ? "any amount" : gib(f.locked_memory);
  if (needs_locked && f.locked_memory < w.kv_bytes) {
    report.warn("locked memory", locked + " may be page-locked",
                "set memlock to unlimited (ulimit -l, LimitMEMLOCK=infinity): RDMA cards register "
                "the KV cache");
  } else if (needs_locked) {
    report.fine("locked memory", locked + " may be page-locked");
  }
}

}  // namespace

HostFacts read_host(const fs::path& root) {
  HostFacts f;
  f.cpu = read_cpu(root);
  utsname system{};
  if (::uname(&system) == 0) f.kernel = fmt::format("{} {}", system.sysname, system.release);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) {
    f.cores = static_cast<unsigned>(CPU_COUNT(&cores));
  }
  f.quota_cores = read_quota(root);
  f.memory = read_host_memory(root);
  std::ifstream(root / "proc/sys/kernel/shmmax") >> f.largest_segment;
  struct statvfs shm {};
  if (::statvfs((root / "dev/shm").c_str(), &shm) == 0) {
    f.shm_free = uint64_t{shm.f_bavail} * shm.f_frsize;
  }
  f.locked_memory = read_limit(RLIMIT_MEMLOCK);
  f.descriptors = read_limit(RLIMIT_NOFILE);
  f.huge_pages = read_huge_pages(root);
  std::error_code none;
  for (const auto& card : fs::directory_iterator(root / "sys/class/infiniband", none)) {
    f.rdma_cards.push_back(card.path().filename().string());
  }
  std::ranges::sort(f.rdma_cards);
  return f;
}

void judge_host(const HostFacts& f, const Wanted& w, Report& report) {
  report.fine("system", f.kernel);
  judge_cores(f, w, report);
  judge_memory(f, w, report);
  judge_shared_memory(f, w, report);
  judge_limits(f, w, report);
  if (f.huge_pages == "never") {
    report.warn("huge pages", "off",
                "set /sys/kernel/mm/transparent_hugepage/enabled to madvise: copies of KV and "
                "attention are faster on them");
  } else if (!f.huge_pages.empty()) {
    report.fine("huge pages", f.huge_pages);
  }
  if (f.rdma_cards.empty()) {
    report.note("RDMA", "no card: KV goes over TCP between hosts");
  } else {
    report.fine("RDMA", fmt::format("{}", fmt::join(f.rdma_cards, ", ")));
  }
}

}  // namespace baton::doctor
