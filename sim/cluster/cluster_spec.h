#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/latency/profile.h"
#include "common/proto/worker.pb.h"
#include "router/roles/role_controller.h"

namespace baton::sim {

// Workers that are alike.
struct WorkerGroup {
  proto::Role role = proto::ROLE_MIXED;  // at the start, if it is auto
  bool auto_role = false;                // the routers move it
  uint32_t count = 1;
  std::string profile_path;  // as the file has it
  latency::Profile profile;
  uint32_t gpus = 1;  // of one worker; for goodput per GPU
  uint64_t kv_tokens = 0;
  uint32_t block_tokens = 64;
  uint32_t chunk_tokens = 2048;  // prompt tokens in a step; 0: whole prompts
  uint32_t step_tokens = 0;      // rows in a step; 0: chunk_tokens + max_sequences
  uint32_t max_sequences = 256;  // decoded at once
  uint32_t max_context = 0;      // tokens of one sequence; 0: kv_tokens
  bool prefix_cache = true;

  // The NIC that reads go out and come in by, each way for itself.
  double nic_bytes_per_second = 0;
  double read_latency = 0;       // seconds, of a read
  uint32_t workers_per_nic = 1;  // neighbours of this group that share one
};

struct FailureRates {
  double mean_seconds_between = 0;  // of one worker; exponential
  double restart_seconds = 30;
};

// A cluster that is not there.
struct ClusterSpec {
  std::string name;
  std::vector<WorkerGroup> groups;  // each pair that could hand over has equal block_tokens
  uint32_t routers = 1;
  double message_latency = 100e-6;    // seconds, of any message, one way
  double spine_bytes_per_second = 0;  // that all reads between NICs cross; 0: no bound
  std::optional<FailureRates> failures;
  router::RoleOptions roles;  // of workers that are auto

  uint32_t num_workers() const;
  uint32_t num_gpus() const;
  bool moves_roles() const;  // a worker is auto
};

// A YAML file; docs/simulator.md has its keys, and deploy/clusters examples. Profiles are read
// relative to it. kIo, or kInvalidArgument with the file and the key; unknown keys are refused.
result<ClusterSpec> read_cluster(const std::filesystem::path& path);
// The same of a text; `from` stands for the file in errors, and its folder for that of profiles.
result<ClusterSpec> parse_cluster(std::string_view text, const std::filesystem::path& from);

}  // namespace baton::sim
