#include "cli/up_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <utility>

#include "cli/device_defaults.h"
#include "cli/http_address.h"
#include "cli/model_name.h"
#include "common/base/log.h"
#include "common/net/rpc.h"

namespace baton::cli {
namespace {

void add_options(Options& options, UpConfig& c) {
  options.add("model", &c.model, "GGUF file or Hugging Face directory");
  options.add("model-name", &c.model_name, "Name that requests use; empty: from the path");
  options.add("prefill", &c.prefill, "Prefill workers");
  options.add("decode", &c.decode, "Decode workers");
  options.add("mixed", &c.mixed, "Mixed workers; with any, --prefill and --decode default to 0");
  options.add("auto", &c.auto_workers,
              "Workers whose role follows the traffic; with any, the others default to 0");
  options.add("host", &c.host, "Address that HTTP listens on");
  options.add("port", &c.port, "Port that HTTP listens on; 0 picks a free one");
  options.add("threads-per-worker", &c.threads_per_worker,
              "Compute threads of each rank of a worker; 0 divides the cores");
  options.add("tensor-parallel", &c.tensor_parallel,
              "Processes (ranks) that compute a worker's model together; at most its KV heads");
  options.add("prefill-tensor-parallel", &c.prefill_tensor_parallel,
              "The same for prefill workers; 0: as --tensor-parallel");
  options.add("decode-tensor-parallel", &c.decode_tensor_parallel,
              "The same for decode workers; 0: as --tensor-parallel");
  options.add("dtype", &c.dtype, "Weights and KV cache: bf16; f16 on a GPU; f32 on the CPU");
  options.add("device", &c.device, "Where workers compute: cpu, cuda or emulated");
  options.add("profile", &c.profile,
              "Latency profile (deploy/profiles): the times that an emulated device takes");
  options.add("gpus", &c.gpus,
              "GPUs that workers on cuda, and their ranks, are spread over in turn");
  options.add("nccl-library", &c.nccl_library,
              "File of NVIDIA's NCCL, which ranks on GPUs load: a name or a path");
  options.add("deterministic", &c.deterministic,
              "On GPUs, give a request the same tokens in any batch; slower");
  options.add("kv-gib", &c.kv_gib,
              "KV cache of each worker, GiB; emulated: of the device that it stands for");
  options.add("block-tokens", &c.block_tokens,
              "Tokens in a KV block: 16, 32, 64, 128 or 256; on a GPU 64 unless given");
  options.add("chunk-tokens", &c.chunk_tokens,
              "Prompt tokens computed in one step; 0: all at once; on a GPU 2048 unless given");
  options.add("max-context", &c.max_context, "Longest prompt + output; 0: what the model allows");
  options.add("max-sequences", &c.max_sequences, "Sequences that a worker decodes at once");
  options.add("prefix-cache", &c.prefix_cache, "Keep the KV of finished prompts for reuse");
  options.add("preempt-every", &c.preempt_every, "For tests: preempt a sequence every N steps");
  options.add("transport", &c.transport, "KV transport between workers: auto, shm or tcp");
  options.add(
      "kv-from", &c.kv_from,
      "On GPUs, where KV is read: host (a mirror in host memory) or device (the GPUs' own)");
  add_placement_options(options, c.placement);
  add_access_options(options, c.access);
  add_tls_options(options, c.tls);
  options.add("access-log", &c.access_log,
              "File that gets a line of JSON for each request; -: standard output; empty: none");
  add_trace_options(options, c.traces);
  options.add("log-level", &c.log_level, "debug, info, warn or error");
  options.add("record", &c.record,
              "Folder for what each worker's steps took and how requests went (docs/simulator.md)");
  options.add("ask", &c.ask, "Ask this once the cluster is up, then stay up");
  options.add("once", &c.once, "Ask this, print the answer and stop");
  options.add("ask-tokens", &c.ask_tokens, "Longest answer to --ask and --once, tokens");
  options.add("quiet", &c.quiet, "Print the answer alone, no banner");
}

// Asking for mixed or auto workers means just them, unless the others are asked for too.
void settle(const Options& options, UpConfig& c) {
  const bool others = c.mixed > 0 || c.auto_workers > 0;
  if (others && !options.was_set("prefill")) c.prefill = 0;
  if (others && !options.was_set("decode")) c.decode = 0;
  settle_for_device(options, c.device, &c.block_tokens, &c.chunk_tokens);
}

// A worker looks whether its ranks may share one: here for the sake of one clear sentence.
status check_gpus(const UpConfig& c) {
  if (c.device != "cuda" || std::getenv("NCCL_MULTI_RANK_GPU_ENABLE") != nullptr) return {};
  const auto fit = [&](const char* role, uint32_t workers) -> status {
    const uint32_t ranks = c.ranks_of(role);
    if (workers == 0 || ranks <= c.gpus) return {};
    return error(Errc::kInvalidArgument,
                 fmt::format("the {} ranks of a {} worker need a GPU each, and --gpus is {}", ranks,
                             role, c.gpus));
  };
  BATON_CHECK_OK(fit("prefill", c.prefill));
  BATON_CHECK_OK(fit("decode", c.decode));
  return fit("mixed", c.mixed + c.auto_workers);
}

status check(const UpConfig& c) {
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (c.model.empty()) return bad("--model is needed");
  BATON_CHECK_OK(check_log_level(c.log_level));
  if (c.mixed == 0 && c.auto_workers == 0 && (c.prefill == 0 || c.decode == 0)) {
    return bad("nothing can answer: give --mixed N, --auto N, or --prefill N and --decode N");
  }
  if (uint64_t{c.prefill} + c.decode + c.mixed + c.auto_workers > 64) {
    return bad("more than 64 workers on one machine");
  }
  for (const char* role : {"prefill", "decode", "mixed"}) {
    if (c.ranks_of(role) == 0 || c.ranks_of(role) > 64) {
      return bad("--tensor-parallel is not in [1, 64]");
    }
  }
  BATON_CHECK_OK(check_profile(c.device, c.profile));
  if (c.gpus == 0 || c.gpus > 64) return bad("--gpus is not in [1, 64]");
  BATON_CHECK_OK(check_gpus(c));
  if (c.host.empty()) return bad("--host is empty");
  if (c.port > 65535) return bad("--port is over 65535");
  // Of tenants' keys only digests are kept.
  if (!c.access.tenants_file.empty() && !(c.ask.empty() && c.once.empty())) {
    return bad("--ask and --once have no key to ask with where there is a --tenants-file");
  }
  BATON_TRY(const PlacementConfig placement, make_placement(c.placement));
  BATON_CHECK_OK(read_access(c.access, placement.classes));
  BATON_CHECK_OK(read_traces(c.traces));
  return {};
}

uint32_t threads(const UpConfig& c) {
  if (c.threads_per_worker != 0) return c.threads_per_worker;
  return std::max(1u, std::thread::hardware_concurrency() / c.ranks());
}

// The GPUs of a worker's ranks; of one rank --gpu says it.
std::string rank_gpus(const UpConfig& c, const WorkerPlace& place) {
  const uint32_t ranks = c.ranks_of(place.role);
  std::string list;
  if (c.device != "cuda" || ranks == 1) return list;
  for (uint32_t r = 0; r < ranks; ++r) {
    list += (r == 0 ? "" : ",") + std::to_string((place.gpu + r) % c.gpus);
  }
  return list;
}

using Flag = std::pair<const char*, std::string>;

std::vector<std::string> command(const char* name, std::initializer_list<Flag> flags) {
  std::vector<std::string> args = {name};
  for (const auto& [flag, value] : flags) {
    args.push_back(std::string("--") + flag);
    args.push_back(value);
  }
  return args;
}

}  // namespace

result<Options::Outcome> parse_up(const std::vector<std::string>& args, UpConfig& config) {
  Options options("up", "A whole cluster on this machine: a router and its workers.");
  add_options(options, config);
  options.settle([&] { settle(options, config); });
  BATON_TRY(const Options::Outcome outcome, options.parse(args));
  if (outcome == Options::Outcome::kDone) return outcome;
  // To stay up is not what was asked for. In a file it may stand, as --print-config writes it.
  if (options.was_given("once") && config.once.empty()) {
    return error(Errc::kInvalidArgument, "--once is empty: nothing to ask");
  }
  BATON_CHECK_OK(check(config));
  config.host = without_brackets(config.host);
  if (config.model_name.empty()) config.model_name = model_name_of(config.model);
  return outcome;
}

std::vector<std::string> worker_args(const UpConfig& c, const WorkerPlace& place) {
  auto args = command("worker", {{"role", place.role},
                                 {"name", place.name},
                                 {"listen", place.listen},
                                 {"metrics-listen", place.metrics_listen},
                                 {"model", c.model},
                                 {"model-name", c.model_name},
                                 {"threads", std::to_string(threads(c))},
                                 {"tensor-parallel", std::to_string(c.ranks_of(place.role))},
                                 {"dtype", c.dtype},
                                 {"device", c.device},
                                 {"profile", c.profile},
                                 {"gpu", std::to_string(place.gpu)},
                                 {"rank-gpus", rank_gpus(c, place)},
                                 {"nccl-library", c.nccl_library},
                                 {"kv-gib", std::to_string(c.kv_gib)},
                                 {"block-tokens", std::to_string(c.block_tokens)},
                                 {"chunk-tokens", std::to_string(c.chunk_tokens)},
                                 {"max-context", std::to_string(c.max_context)},
                                 {"max-sequences", std::to_string(c.max_sequences)},
                                 {"preempt-every", std::to_string(c.preempt_every)},
                                 {"transport", c.transport},
                                 {"kv-from", c.kv_from},
                                 {"secret-file", c.secret_file},
                                 {"tls-cert", c.tls.cert},
                                 {"tls-key", c.tls.key},
                                 {"tls-ca", c.tls.ca},
                                 {"log-level", c.log_level},
                                 {"drain-seconds", std::to_string(kWorkerDrain.count())}});
  if (c.deterministic) args.push_back("--deterministic=true");
  if (!c.record.empty()) {
    args.insert(args.end(), {"--record-steps", c.record + "/steps-" + place.name + ".csv"});
  }
  args.push_back(c.prefix_cache ? "--prefix-cache=true" : "--prefix-cache=false");
  return args;
}

std::vector<std::string> router_args(const UpConfig& c, uint16_t port,
                                     const std::vector<std::string>& workers) {
  auto args = command("router", {{"model", c.model},
                                 {"model-name", c.model_name},
                                 {"listen", net::join_host_port(c.host, port)},
                                 {"api-key-file", c.access.api_key_file},
                                 {"tenants-file", c.access.tenants_file},
                                 {"admin-key-file", c.access.admin_key_file},
                                 {"secret-file", c.secret_file},
                                 {"tls-cert", c.tls.cert},
                                 {"tls-key", c.tls.key},
                                 {"tls-ca", c.tls.ca},
                                 {"access-log", c.access_log},
                                 {"log-level", c.log_level},
                                 {"drain-seconds", std::to_string(kRouterDrain.count())}});
  if (!c.record.empty()) {
    args.insert(args.end(), {"--record-requests", c.record + "/requests.csv"});
  }
  const std::vector<std::string> traces = trace_args(c.traces);
  args.insert(args.end(), traces.begin(), traces.end());
  const std::vector<std::string> placement = placement_args(c.placement);
  args.insert(args.end(), placement.begin(), placement.end());
  if (!c.access.allowed_hosts.empty()) {
    args.push_back("--allowed-hosts");
    args.insert(args.end(), c.access.allowed_hosts.begin(), c.access.allowed_hosts.end());
  }
  args.push_back("--workers");
  args.insert(args.end(), workers.begin(), workers.end());
  return args;
}

}  // namespace baton::cli
