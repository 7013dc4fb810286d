#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>

#include "cli/commands.h"
#include "cli/device_defaults.h"
#include "cli/doctor_peer.h"
#include "cli/tls_options.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/device/cuda/cuda_device.h"
#include "common/net/rpc.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/ops/cpu/isa.h"
#include "doctor/host.h"
#include "doctor/links.h"
#include "doctor/model_check.h"
#include "doctor/step_profiler.h"
#include "worker/compute.h"
#include "worker/kv_devices.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

constexpr double kGib = 1 << 30;

struct DoctorSettings {
  std::string model;
  std::string device = "cpu", dtype = "bf16";
  uint32_t gpu = 0, threads = 1, block_tokens = 16, chunk_tokens = 256;
  double kv_gib = 0.5;
  std::string kv_from = "host";
  std::vector<std::string> listen;
  std::string router_config, worker_config, up_config;
  bool links = true;
  uint32_t link_mib = 64;
  double link_seconds = 1;
  std::string serve, peer;
  std::string secret_file;
  TlsPaths tls;
  std::string ucx_devices = "auto", ucx_port_range;
  std::string profile;
  double profile_seconds = 20;
  std::string json;
};

void add_options(Options& options, DoctorSettings& s) {
  options.add("model", &s.model, "GGUF file or Hugging Face directory to look at; empty: none");
  options.add("device", &s.device, "Where workers are to compute: cpu or cuda");
  options.add("dtype", &s.dtype, "Weights and KV cache: bf16; f16 on a GPU; f32 on the CPU");
  options.add("gpu", &s.gpu, "Which GPU a worker is to take, of those that CUDA shows");
  options.add("threads", &s.threads, "Compute threads of a worker");
  options.add("kv-gib", &s.kv_gib, "KV cache of a worker, GiB");
  options.add("kv-from", &s.kv_from, "Where peers read KV, as of workers: host or device");
  options.add("block-tokens", &s.block_tokens, "Tokens in a KV block, for --profile");
  options.add("chunk-tokens", &s.chunk_tokens, "Most prompt tokens of a step, for --profile");
  options.add("listen", &s.listen, "host:port that something is to listen on: is it free?");
  options.add("router-config", &s.router_config, "A file for baton router --config: is it valid?");
  options.add("worker-config", &s.worker_config, "The same for baton worker");
  options.add("up-config", &s.up_config, "The same for baton up");
  options.add("links", &s.links, "Measure how fast KV is read on this host, by each transport");
  options.add("link-mib", &s.link_mib, "Bytes of a large read that is measured, MiB");
  options.add("link-seconds", &s.link_seconds, "How long each is measured");
  options.add("serve", &s.serve,
              "host:port to wait at for the doctor of another host, which measures with --peer");
  options.add("peer", &s.peer, "host:port of a doctor that waits (--serve): measure reads from it");
  options.add("secret-file", &s.secret_file,
              "File with the secret that both doctors share, as of workers");
  add_tls_options(options, s.tls);
  options.add("ucx-devices", &s.ucx_devices, "Network devices for KV, as of workers");
  options.add("ucx-port-range", &s.ucx_port_range, "TCP ports for the KV transport, first-last");
  options.add("profile", &s.profile,
              "A file for a latency profile of the model on this device, which workers take");
  options.add("profile-seconds", &s.profile_seconds, "How long steps are run for it");
  options.add("json", &s.json, "A file for what was found");
}

// Who is read is as careful as a worker.
status check_serve(const DoctorSettings& s) {
  if (s.serve.empty()) return {};
  BATON_TRY(const auto where, net::split_host_port(s.serve));
  if (net::is_loopback(where.host) || !s.secret_file.empty() || !s.tls.cert.empty()) return {};
  return error(Errc::kInvalidArgument,
               "--serve beyond loopback needs a --secret-file that both doctors share, or "
               "certificates: whoever comes may read this process's memory");
}

status check(const DoctorSettings& s) {
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (s.device != "cpu" && s.device != "cuda") {
    return bad("--device '" + s.device + "' is neither cpu nor cuda");
  }
  if (s.dtype != "bf16" && s.dtype != (s.device == "cuda" ? "f16" : "f32")) {
    return bad("--dtype '" + s.dtype + "' is not offered there");
  }
  if (s.threads == 0 || s.threads > 1024) return bad("--threads is not in [1, 1024]");
  if (!(s.kv_gib > 0) || s.kv_gib > 1e6) return bad("--kv-gib is not above 0");
  if (s.block_tokens < 16 || s.block_tokens > 256 || (s.block_tokens & (s.block_tokens - 1)) != 0) {
    return bad("--block-tokens is none of 16, 32, 64, 128, 256");
  }
  if (s.chunk_tokens == 0 || s.chunk_tokens > 65536)
    return bad("--chunk-tokens is not in [1, 65536]");
  if (s.link_mib == 0 || s.link_mib > 1024) return bad("--link-mib is not in [1, 1024]");
  if (!(s.link_seconds > 0) || s.link_seconds > 60) return bad("--link-seconds is not in (0, 60]");
  if (!(s.profile_seconds > 0) || s.profile_seconds > 3600) {
    return bad("--profile-seconds is not in (0, 3600]");
  }
  if (s.kv_from != "host" && s.kv_from != "device") return bad("--kv-from is none of host, device");
  BATON_CHECK_OK(check_serve(s));
  if (!s.profile.empty() && s.model.empty()) return bad("--profile needs a --model");
  if (!s.serve.empty() && !s.peer.empty()) return bad("--serve and --peer are two hosts' words");
  return {};
}

DType dtype_of(const DoctorSettings& s) {
  return s.dtype == "f32" ? DType::kF32 : s.dtype == "f16" ? DType::kF16 : DType::kBF16;
}

class Doctor {
 public:
  explicit Doctor(const DoctorSettings& s) : s_(s) {}

  status look() {
    look_at_host();
    look_at_device();
    look_at_ports();
    look_at_files();
    if (s_.links) measure_links();
    if (!s_.peer.empty()) measure_peer();
    if (!s_.profile.empty()) profile();
    std::printf("%s\n", doctor::summary(report_).c_str());
    if (!s_.json.empty()) BATON_CHECK_OK(write_json());
    if (!s_.serve.empty()) BATON_CHECK_OK(serve());
    return {};
  }
  bool is_well() const { return report_.count(doctor::Level::kError) == 0; }

 private:
  void print() {
    for (; printed_ < report_.findings().size(); ++printed_) {
      std::fputs(doctor::to_text(report_.findings()[printed_]).c_str(), stdout);
    }
    std::fflush(stdout);
  }

  void look_at_host() {
    const auto kv_bytes = static_cast<uint64_t>(s_.kv_gib * kGib);
    doctor::Report of_model;
    const auto model = s_.model.empty()
                           ? std::nullopt
                           : doctor::check_model(s_.model, dtype_of(s_), kv_bytes, of_model);
    const bool on_host = s_.device == "cpu";
    if (!on_host) on_gpu_bytes_ = kv_bytes + (model ? model->weight_bytes : 0);
    doctor::judge_host(doctor::read_host(),
                       {.device = s_.device,
                        .threads = s_.threads,
                        .weight_bytes = on_host && model ? model->weight_bytes : 0,
                        .kv_bytes = on_host || s_.kv_from == "host" ? kv_bytes : 0},
                       report_);
    for (const doctor::Finding& f : of_model.findings()) report_.add(f);
    print();
  }

  void look_at_device() {
    if (const status isa = ops::check_isa(); !isa) {
      report_.fail("CPU kernels", isa.error().message, "use a machine of the last ten years");
    } else {
      report_.fine("CPU kernels", ops::cpu_ops().numerics);
    }
    look_at_gpus();
    print();
  }
  void look_at_gpus() {
    const auto count = device::count_cuda_devices();
    if (!count) return no_gpu(count.error());
    for (int i = 0; i < *count; ++i) {
      const std::string about = fmt::format("GPU {}", i);
      const bool is_wanted = s_.device == "cuda" && static_cast<uint32_t>(i) == s_.gpu;
      const auto gpu = device::make_cuda_device(i);
      if (!gpu) {
        report_.add({is_wanted ? doctor::Level::kError : doctor::Level::kWarning, about,
                     gpu.error().message, "leave it out by CUDA_VISIBLE_DEVICES"});
        continue;
      }
      const device::DeviceInfo& info = (*gpu)->info();
      if (is_wanted && info.memory_bytes < on_gpu_bytes_) {
        report_.fail(about,
                     fmt::format("{}; weights and KV cache take {:.1f} GiB", info.description,
                                 static_cast<double>(on_gpu_bytes_) / kGib),
                     "lower --kv-gib, or spread the model (--tensor-parallel)");
      } else {
        report_.fine(about, info.description);
      }
    }
  }
  void no_gpu(const Error& why) {
    if (s_.device == "cuda") {
      report_.fail("GPU", why.message,
                   "install NVIDIA's driver (nvidia-smi must show the GPU; in a container, give "
                   "it one), or use --device cpu");
    } else {
      report_.note("GPU", why.message);
    }
  }

  void look_at_ports() {
    namespace ip = boost::asio::ip;
    for (const std::string& address : s_.listen) {
      const auto where = net::split_host_port(address);
      if (!where) {
        report_.fail("port", where.error().message, "write host:port");
        continue;
      }
      boost::asio::io_context io;
      boost::system::error_code ec;
      const auto found = ip::tcp::resolver(io).resolve(where->host, where->port, ec);
      if (!ec) {
        ip::tcp::acceptor acceptor(io);
        const ip::tcp::endpoint at = found.begin()->endpoint();
        acceptor.open(at.protocol(), ec);
        acceptor.set_option(ip::tcp::acceptor::reuse_address(true), ec);
        acceptor.bind(at, ec);
        if (!ec) acceptor.listen(1, ec);
      }
      if (ec) {
        report_.fail("port", fmt::format("cannot listen on {}: {}", address, ec.message()),
                     "choose another, or end what has it (ss -ltnp shows it)");
      } else {
        report_.fine("port", address + " is free");
      }
    }
    print();
  }

  void look_at_files() {
    const auto look = [&](const char* command, const std::string& file,
                          status (*check_file)(const std::string&)) {
      if (file.empty()) return;
      if (const status valid = check_file(file); valid) {
        report_.fine("config", fmt::format("{} is one for baton {}", file, command));
      } else {
        report_.fail("config", fmt::format("{}: {}", file, valid.error().message),
                     fmt::format("baton {} --help says what there is", command));
      }
    };
    look("router", s_.router_config, check_router_file);
    look("worker", s_.worker_config, check_worker_file);
    look("up", s_.up_config, check_up_file);
    print();
  }

  void say_link(const char* what, const result<doctor::LinkFound>& found, const char* advice) {
    if (!found) {
      report_.fail(what, found.error().message, advice);
    } else {
      link_ = {.latency = to_seconds(found->latency), .byte = 1 / found->bytes_per_second};
      report_.fine(what, fmt::format("{:.2f} GB/s over {}, 64 KiB in {:.0f} us ({})",
                                     found->bytes_per_second * 1e-9, found->transport,
                                     to_seconds(found->latency) * 1e6, found->software));
    }
    print();
  }
  size_t link_bytes() const { return size_t{s_.link_mib} << 20; }

  void measure_links() {
    kvtransfer::UcxOptions tcp;
    tcp.tls = "tcp";
    tcp.net_devices = "lo";
    say_link("KV over tcp", doctor::measure_here(tcp, link_bytes(), time()),
             "see whether the loopback device is up, and UCX_* is set in the environment");
    kvtransfer::UcxOptions shared;
    shared.net_devices = "lo";
    const auto found = doctor::measure_here(shared, link_bytes(), time());
    if (found && found->transport == "tcp") {
      report_.warn("KV on one host", "workers of one host read each other over tcp",
                   "see the line on shared memory; in containers they need one IPC namespace");
    }
    say_link("KV on one host", found, "see the line on shared memory");
  }
  Duration time() const { return from_seconds(s_.link_seconds); }

  result<net::RpcOptions> rpc() const {
    net::RpcOptions options;
    BATON_TRY(options.secrets, net::read_secrets(s_.secret_file));
    BATON_TRY(options.tls, read_tls(s_.tls, net::kTlsWorkerName));
    return options;
  }
  // As a worker would that listens at `address`.
  result<kvtransfer::UcxOptions> ucx_at(const std::string& address) const {
    BATON_TRY(const auto where, net::split_host_port(address));
    worker::WorkerConfig config;
    config.listen = address;
    config.trusted_network = !net::is_loopback(where.host);
    config.ucx_devices = s_.ucx_devices;
    kvtransfer::UcxOptions ucx;
    BATON_TRY(ucx.net_devices, worker::kv_devices(config));
    ucx.tcp_port_range = s_.ucx_port_range;
    ucx.name = "doctor";
    return ucx;
  }

  void measure_peer() {
    const auto measured = [&]() -> result<doctor::LinkFound> {
      BATON_TRY(const auto options, rpc());
      BATON_TRY(const auto where, net::split_host_port(s_.peer));
      const bool here = net::is_loopback(where.host);
      BATON_TRY(kvtransfer::UcxOptions ucx, ucx_at(here ? "127.0.0.1:0" : "0.0.0.0:0"));
      ucx.is_read = false;
      return doctor::measure_reads(
          ucx, link_bytes(), time(),
          [&](const kvtransfer::Endpoint& mine) { return meet_peer(s_.peer, options, mine); });
    };
    say_link("KV from peer", measured(),
             "start baton doctor --serve there, with the same secret; look at firewalls: KV takes "
             "ports of its own (--ucx-port-range)");
  }

  status serve() {
    BATON_TRY(const auto options, rpc());
    BATON_TRY(const auto ucx, ucx_at(s_.serve));
    BATON_TRY(const auto side, doctor::ReadSide::start(ucx, link_bytes()));
    return serve_reads(s_.serve, options, *side, [](uint16_t port) {
      std::printf("waiting on port %u for baton doctor --peer; Ctrl-C ends\n", port);
      std::fflush(stdout);
    });
  }

  void profile() {
    const auto made = [&]() -> result<latency::Profile> {
      BATON_TRY(
          worker::Compute compute,
          worker::make_compute(
              {.device = s_.device, .dtype = s_.dtype, .threads = s_.threads, .gpu = s_.gpu}));
      BATON_TRY(const auto profiler,
                doctor::StepProfiler::create(s_.model, *compute.device, compute.ops,
                                             {.dtype = dtype_of(s_),
                                              .block_tokens = s_.block_tokens,
                                              .max_chunk = s_.chunk_tokens}));
      const doctor::StepsFound found = doctor::measure_steps(
          *profiler, from_seconds(s_.profile_seconds),
          [](double share) { std::fprintf(stderr, "profiling: %.0f %%\n", share * 100); });
      say_errors(found);
      const std::string model = std::filesystem::path(s_.model).filename().string();
      return latency::Profile{.name = "measured",
                              .source = fmt::format("baton doctor: {} steps of {} as {} on {}",
                                                    found.steps, model, s_.dtype, s_.device),
                              .kv_bytes_per_token = profiler->kv_bytes_per_token(),
                              .step = found.costs,
                              .link = link_};
    }();
    if (!made) {
      report_.fail("profile", made.error().message, "see the lines on model and device");
    } else if (!(std::ofstream(s_.profile) << latency::to_yaml(*made) << std::flush)) {
      report_.fail("profile", "cannot write " + s_.profile,
                   "name a file in a folder that is there");
    } else {
      report_.fine("profile", s_.profile + ", for --profile of workers and the simulator");
    }
    print();
  }
  void say_errors(const doctor::StepsFound& found) {
    constexpr const char* kKinds[] = {"prefill", "decode", "mixed"};
    std::string text = fmt::format("{} steps; off by, median and p95:", found.steps);
    bool far = false;
    for (size_t k = 0; k < latency::kNumStepKinds; ++k) {
      const double median = found.errors[k].error_quantile(0.5);
      far |= median > 0.15;
      text += fmt::format(" {} {:.0f} and {:.0f} %{}", kKinds[k], median * 100,
                          found.errors[k].error_quantile(0.95) * 100,
                          k + 1 < latency::kNumStepKinds ? "," : "");
    }
    if (far) {
      report_.warn("step times", text,
                   "run it while nothing else does, or for longer (--profile-seconds)");
    } else {
      report_.fine("step times", text);
    }
  }

  status write_json() const {
    json::array findings;
    for (const doctor::Finding& f : report_.findings()) {
      findings.push_back(json::object{
          {"level", name(f.level)}, {"about", f.about}, {"found", f.found}, {"advice", f.advice}});
    }
    const json::object all{{"findings", std::move(findings)}, {"ok", is_well()}};
    if (!(std::ofstream(s_.json) << json::serialize(all) << '\n' << std::flush)) {
      return error(Errc::kIo, "cannot write " + s_.json);
    }
    return {};
  }

  const DoctorSettings& s_;
  doctor::Report report_;
  size_t printed_ = 0;
  uint64_t on_gpu_bytes_ = 0;                                 // that a worker would take of one
  latency::LinkCosts link_{.latency = 50e-6, .byte = 2e-10};  // until one is measured
};

}  // namespace

int run_doctor(const std::vector<std::string>& args) {
  DoctorSettings settings;
  Options options("doctor",
                  "Whether this machine, a model, a network and configurations are fit for Baton, "
                  "and what to do where not.");
  add_options(options, settings);
  options.settle([&] {
    settle_for_device(options, settings.device, &settings.block_tokens, &settings.chunk_tokens);
  });
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  const status usable = outcome ? check(settings) : status(outcome.error());
  if (!usable) {
    std::fprintf(stderr, "baton doctor: %s\n", usable.error().message.c_str());
    return 2;
  }
  init_log("doctor", "warn");
  Doctor doctor(settings);
  if (const status looked = doctor.look(); !looked) {
    std::fprintf(stderr, "baton doctor: %s\n", looked.error().message.c_str());
    return 1;
  }
  return doctor.is_well() ? 0 : 1;
}

}  // namespace baton::cli
