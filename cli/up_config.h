#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/access_options.h"
#include "cli/placement_options.h"
#include "cli/tls_options.h"
#include "cli/trace_options.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/result.h"

namespace baton::cli {

// A stop lets requests finish for as long as a drain lasts; a child that has not ended when its
// grace is over is killed.
inline constexpr seconds kRouterDrain{10}, kRouterGrace{15};
inline constexpr seconds kWorkerDrain{3}, kWorkerGrace{5};

// What `baton up` was asked for.
struct UpConfig {
  std::string model;
  std::string model_name;
  uint32_t prefill = 1, decode = 1, mixed = 0, auto_workers = 0;
  std::string host = "127.0.0.1";
  uint32_t port = 8000;
  uint32_t threads_per_worker = 0;  // of each rank; 0: the cores, divided
  uint32_t tensor_parallel = 1;
  uint32_t prefill_tensor_parallel = 0, decode_tensor_parallel = 0;  // 0: as tensor_parallel
  std::string dtype = "bf16";
  std::string device = "cpu";
  std::string profile;  // emulated: the latency profile
  bool deterministic = false;
  uint32_t gpus = 1;
  std::string nccl_library = "libnccl.so.2";
  double kv_gib = 0.5;
  uint32_t block_tokens = 16;
  uint32_t chunk_tokens = 256;
  uint32_t max_context = 0;
  uint32_t max_sequences = 64;
  uint32_t preempt_every = 0;
  bool prefix_cache = true;
  std::string transport = "auto";
  std::string kv_from = "host";
  PlacementSettings placement;
  AccessPaths access;       // to the router
  std::string secret_file;  // not an option: drawn for the children
  TlsPaths tls;             // of all of them
  std::string log_level = "warn";
  std::string access_log;  // of the router; empty: none
  TraceSettings traces;    // of the router
  std::string record;      // a folder; empty: nothing is recorded
  std::string ask, once;
  uint32_t ask_tokens = 200;
  bool quiet = false;

  uint32_t workers() const { return prefill + decode + mixed + auto_workers; }
  std::vector<std::pair<std::string, uint32_t>> of_roles() const {
    return {{"prefill", prefill}, {"decode", decode}, {"mixed", mixed}, {"auto", auto_workers}};
  }
  uint32_t ranks_of(std::string_view role) const {
    const uint32_t own = role == "prefill"  ? prefill_tensor_parallel
                         : role == "decode" ? decode_tensor_parallel
                                            : 0;
    return own == 0 ? tensor_parallel : own;
  }
  uint32_t ranks() const {
    return prefill * ranks_of("prefill") + decode * ranks_of("decode") +
           (mixed + auto_workers) * ranks_of("mixed");
  }
};

// Fills `config` from flags, environment and file, and checks it. Errors name the flag.
result<Options::Outcome> parse_up(const std::vector<std::string>& args, UpConfig& config);

// Arguments of the children. `listen` and `metrics_listen` are host:port, as are `workers`.
struct WorkerPlace {
  std::string role, name;
  std::string listen, metrics_listen;
  uint32_t gpu = 0;  // of its first rank
};
std::vector<std::string> worker_args(const UpConfig& config, const WorkerPlace& place);
std::vector<std::string> router_args(const UpConfig& config, uint16_t port,
                                     const std::vector<std::string>& workers);

}  // namespace baton::cli
