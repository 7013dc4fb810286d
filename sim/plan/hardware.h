#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/latency/profile.h"
#include "sim/plan/derive.h"

namespace baton::sim {

// What one worker can be: so many devices of one kind.
struct WorkerOption {
  std::string device;
  uint32_t tensor_parallel = 1;  // its GPUs
  latency::Profile profile;
  std::filesystem::path profile_path;  // empty: it is derived
  uint64_t kv_tokens = 0;
  double cost = 1;                   // of the worker, in the table's unit
  double nic_bytes_per_second = 0;   // of all its GPUs together, to other nodes
  double node_bytes_per_second = 0;  // within its node
  double read_latency = 0;           // seconds
  uint32_t available = 0;            // GPUs of this device that there are

  bool derived() const { return profile_path.empty(); }
  std::string to_string() const;  // "h200 TP2"
};

// The table that a plan is made from: one model's workers on the devices that there are.
struct Hardware {
  std::string name;
  double message_latency = 100e-6;  // seconds
  uint32_t gpus_per_node = 8;
  uint32_t block_tokens = 64;
  uint32_t max_sequences = 256;
  std::vector<WorkerOption> workers;  // at least one; all of equal kv_bytes_per_token
};

// YAML; docs/planning.md has the keys, and deploy/plans examples. Profiles are read relative to the
// file. `model` is what is derived of; without it there is only what was measured. Options whose
// weights do not fit are left out. kIo, or kInvalidArgument with the file and the key.
result<Hardware> read_hardware(const std::filesystem::path& path,
                               const std::optional<ModelShape>& model);
// The same of a text; `from` stands for the file in errors, and its folder for that of profiles.
result<Hardware> parse_hardware(std::string_view text, const std::filesystem::path& from,
                                const std::optional<ModelShape>& model);
result<ModelShape> read_model_shape(const std::filesystem::path& path);
result<ModelShape> parse_model_shape(std::string_view text, const std::filesystem::path& from);

}  // namespace baton::sim
