#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <optional>

#include "cli/commands.h"
#include "cli/device_defaults.h"
#include "cli/model_name.h"
#include "cli/process.h"
#include "cli/run_loop.h"
#include "cli/tls_options.h"
#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/formats/model_files.h"
#include "common/net/rpc.h"
#include "worker/worker.h"

namespace baton::cli {
namespace {

struct WorkerSettings {
  worker::WorkerConfig worker;
  std::string role = "mixed", start_role = "mixed";
  std::string secret_file;
  TlsPaths tls;
  double kv_gib = 0.5;
  std::string log_level = "info";
  uint32_t drain_seconds = 30;
  uint32_t warm_up_seconds = 5;
  int32_t ready_fd = -1;
};

void add_options(Options& options, WorkerSettings& s) {
  worker::WorkerConfig& w = s.worker;
  options.add("role", &s.role, "prefill, decode, mixed, or auto: as routers say");
  options.add("start-role", &s.start_role, "With --role auto, until a router says another");
  options.add("name", &w.name, "Name in logs and metrics");
  options.add("model", &w.model, "GGUF file or Hugging Face directory");
  options.add("model-name", &w.model_name, "Name that requests use; empty: from the path");
  options.add("listen", &w.listen, "host:port for routers and peers; port 0 picks one");
  options.add("advertise", &w.advertise,
              "host:port where others reach it; empty: as listened, or as the router reaches it");
  options.add("metrics-listen", &w.metrics_listen, "host:port of /metrics, /health and /ready");
  options.add("trusted-network", &w.trusted_network,
              "Allow addresses beyond loopback: only routers and workers can reach this network");
  options.add(
      "secret-file", &s.secret_file,
      "File with the secret that routers and workers share, one a line; needed beyond loopback, "
      "or certificates");
  add_tls_options(options, s.tls);
  options.add("device", &w.device, "Where to compute: cpu, cuda or emulated");
  options.add("profile", &w.profile,
              "Latency profile (deploy/profiles): the times that an emulated device takes");
  options.add("gpu", &w.gpu, "Which GPU, of those that CUDA shows");
  options.add("rank-gpus", &w.rank_gpus,
              "GPUs of the ranks, with commas between; empty: --gpu and those that follow it");
  options.add("nccl-library", &w.nccl_library,
              "File of NVIDIA's NCCL, which ranks on GPUs load: a name or a path");
  options.add("deterministic", &w.deterministic,
              "On a GPU, give a request the same tokens in any batch; slower");
  options.add("threads", &w.threads, "Compute threads of each rank");
  options.add("tensor-parallel", &w.tensor_parallel,
              "Processes (ranks) that compute the model together, on GPUs one each; at most its KV "
              "heads");
  options.add("dtype", &w.dtype, "Weights and KV cache: bf16; f16 on a GPU; f32 on the CPU");
  options.add("kv-gib", &s.kv_gib, "KV cache, GiB; emulated: of the device that it stands for");
  options.add("block-tokens", &w.block_tokens,
              "Tokens in a KV block: 16, 32, 64, 128 or 256; on a GPU 64 unless given");
  options.add("chunk-tokens", &w.chunk_tokens,
              "Prompt tokens computed in one step; 0: all at once; on a GPU 2048 unless given");
  options.add("max-context", &w.max_context, "Longest prompt + output; 0: what the model allows");
  options.add("max-sequences", &w.max_sequences, "Sequences decoded at once");
  options.add("step-depth", &w.step_depth, "Steps planned ahead: 1 or 2");
  options.add("warm-up-seconds", &s.warm_up_seconds,
              "On a GPU, how long recording decode steps may take at start-up; 0: none then");
  options.add("prefix-cache", &w.prefix_cache, "Keep the KV of finished prompts for reuse");
  options.add("preempt-every", &w.preempt_every, "For tests: preempt a sequence every N steps");
  options.add("verify-kv", &w.verify_kv,
              "Check the digest of all KV that is read; without, a wrong byte is a wrong token");
  options.add("transport", &w.transport, "KV transport: auto, shm or tcp");
  options.add(
      "kv-from", &w.kv_from,
      "On a GPU, where KV is read: host (a mirror in host memory) or device (the GPUs' own, "
      "within one host)");
  options.add("ucx-devices", &w.ucx_devices,
              "Network devices for KV; auto: that of the listen address; all: every one");
  options.add("ucx-port-range", &w.ucx_port_range, "TCP ports for the KV transport, first-last");
  options.add("record-steps", &w.record_steps,
              "File for what each step had to do and took (CSV), which is replaced; empty: none");
  options.add("log-level", &s.log_level, "debug, info, warn or error");
  options.add("drain-seconds", &s.drain_seconds, "How long SIGTERM lets requests finish");
  options.add("ready-fd", &s.ready_fd, "Descriptor to report the ports on, once");
}

std::optional<proto::Role> parse_role(const std::string& name) {
  if (name == "prefill") return proto::ROLE_PREFILL;
  if (name == "decode") return proto::ROLE_DECODE;
  if (name == "mixed") return proto::ROLE_MIXED;
  return std::nullopt;
}

status check(WorkerSettings& s) {
  worker::WorkerConfig& w = s.worker;
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (w.model.empty()) return bad("--model is needed");
  for (const std::string& address : {w.listen, w.metrics_listen}) {
    if (const auto where = net::split_host_port(address); !where) return where.error();
  }
  BATON_CHECK_OK(check_log_level(s.log_level));
  w.log_level = s.log_level;
  w.auto_role = s.role == "auto";
  const auto role = parse_role(w.auto_role ? s.start_role : s.role);
  if (!role && w.auto_role) {
    return bad("--start-role '" + s.start_role + "' is none of prefill, decode, mixed");
  }
  if (!role) return bad("--role '" + s.role + "' is none of prefill, decode, mixed, auto");
  w.role = *role;
  if (w.tensor_parallel == 0 || w.tensor_parallel > 64) {
    return bad("--tensor-parallel is not in [1, 64]");
  }
  BATON_CHECK_OK(check_profile(w.device, w.profile));
  if (w.threads == 0 || w.threads > 1024) return bad("--threads is not in [1, 1024]");
  if (w.block_tokens < 16 || w.block_tokens > 256 || (w.block_tokens & (w.block_tokens - 1)) != 0) {
    return bad("--block-tokens is none of 16, 32, 64, 128, 256");
  }
  if (w.chunk_tokens % w.block_tokens != 0) {
    return bad("--chunk-tokens is not a multiple of --block-tokens");
  }
  if (w.max_sequences == 0 || w.max_sequences > 4096)
    return bad("--max-sequences is not in [1, 4096]");
  if (w.step_depth != 1 && w.step_depth != 2) return bad("--step-depth is neither 1 nor 2");
  if (!(s.kv_gib > 0) || s.kv_gib > 1e6) return bad("--kv-gib is not above 0");
  w.kv_bytes = static_cast<uint64_t>(s.kv_gib * (1ull << 30));
  w.warm_up = seconds(s.warm_up_seconds);
  if (w.model_name.empty()) w.model_name = model_name_of(w.model);
  BATON_TRY(w.secrets, net::read_secrets(s.secret_file));
  BATON_TRY(w.tls, read_tls(s.tls, net::kTlsWorkerName));
  return {};
}

int serve(const WorkerSettings& s) {
  boost::asio::io_context io(1);
  int code = 0;
  auto worker = worker::Worker::start(io, s.worker, [&] {
    code = 1;
    io.stop();
  });
  if (!worker) {
    std::fprintf(stderr, "baton worker: %s\n", worker.error().message.c_str());
    return 1;
  }
  LOG_INFO("{} worker listens on port {}, metrics on port {}", s.role, (*worker)->rpc_port(),
           (*worker)->metrics_port());
  const std::string ports = "{\"rpc\": " + std::to_string((*worker)->rpc_port()) +
                            ", \"metrics\": " + std::to_string((*worker)->metrics_port()) + "}";
  run_until_drained(
      io, [&] { report_ready(s.ready_fd, ports); },
      [&](std::function<void()> done) {
        (*worker)->drain(seconds(s.drain_seconds), std::move(done));
      });
  return code;
}

result<Options::Outcome> parse(const std::vector<std::string>& args, WorkerSettings& settings) {
  Options options("worker", "One worker: a model, its KV cache, and a role.");
  add_options(options, settings);
  options.settle([&] {
    worker::WorkerConfig& w = settings.worker;
    settle_for_device(options, w.device, &w.block_tokens, &w.chunk_tokens);
  });
  BATON_TRY(const Options::Outcome outcome, options.parse(args));
  if (outcome == Options::Outcome::kRun) BATON_CHECK_OK(check(settings));
  return outcome;
}

}  // namespace

status check_worker_file(const std::string& file) { return check_worker({"--config", file}); }

status check_worker(const std::vector<std::string>& args) {
  WorkerSettings settings;
  BATON_CHECK_OK(parse(args, settings));
  BATON_CHECK_OK(worker::check_config(settings.worker));
  BATON_CHECK_OK(formats::read_model_config(settings.worker.model));
  return {};
}

int run_worker(const std::vector<std::string>& args) {
  WorkerSettings settings;
  const auto outcome = parse(args, settings);
  if (!outcome) {
    std::fprintf(stderr, "baton worker: %s\n", outcome.error().message.c_str());
    return 2;
  }
  if (*outcome == Options::Outcome::kDone) return 0;
  init_log(settings.worker.name, settings.log_level);
  return serve(settings);
}

}  // namespace baton::cli
