#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/host_memory.h"
#include "doctor/finding.h"

namespace baton::doctor {

// What this machine gives this process.
struct HostFacts {
  std::string cpu, kernel;
  unsigned cores = 0;      // that it may run on
  double quota_cores = 0;  // by its cgroup; 0: no limit
  HostMemory memory;
  uint64_t largest_segment = 0;  // bytes of System V shared memory (shmmax)
  uint64_t shm_free = 0;         // bytes of /dev/shm
  uint64_t locked_memory = 0;    // bytes that may be page-locked; UINT64_MAX: any
  uint64_t descriptors = 0;      // that may be open
  std::string huge_pages;        // "always", "madvise", "never"; empty: the system does not say
  std::vector<std::string> rdma_cards;
};
// From /proc and /sys below `root`, and this process's own limits.
HostFacts read_host(const std::filesystem::path& root = "/");

// What a worker here is to take.
struct Wanted {
  std::string device = "cpu";
  unsigned threads = 1;
  uint64_t weight_bytes = 0;  // on the host; 0: not known
  uint64_t kv_bytes = 0;      // of the cache that peers read, on the host
};

// Pure.
void judge_host(const HostFacts& facts, const Wanted& wanted, Report& report);

}  // namespace baton::doctor
