#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/metrics.h"
#include "common/base/result.h"
#include "common/net/auth.h"
#include "common/net/tls.h"
#include "common/proto/worker.pb.h"

namespace baton::worker {

struct WorkerConfig {
  std::string name = "worker";
  std::string log_level = "info";        // of its other ranks
  proto::Role role = proto::ROLE_MIXED;  // at the start, if it is auto
  bool auto_role = false;                // routers may change it
  std::string model;                     // path
  std::string model_name;                // that requests use; empty: from the path
  std::string listen = "127.0.0.1:0";
  // host:port where others reach it. Empty: `listen` with the real port, or, where that is any
  // address, the one by which the router reaches it.
  std::string advertise;
  std::string metrics_listen = "127.0.0.1:0";
  // An address beyond loopback needs trust, and one of the others.
  bool trusted_network = false;
  net::Secrets secrets;           // that routers and peers must know
  std::shared_ptr<net::Tls> tls;  // and the certificate that they are shown; theirs are asked for

  // Compute.
  std::string device = "cpu";  // "cpu", "cuda" or "emulated"
  // Path of a latency profile. Emulated: the times its steps take. Else what they are believed to
  // take before any was seen; empty: a rough guess.
  std::string profile;
  uint32_t gpu = 0;  // cuda: which
  // cuda: of each rank, with commas between; empty: `gpu` and those behind it.
  std::string rank_gpus;
  std::string nccl_library = "libnccl.so.2";  // cuda: that ranks load
  bool deterministic = false;  // cuda: the same bits in any batch; the CPU always has that
  uint32_t threads = 1;
  uint32_t tensor_parallel = 1;  // processes that compute the model together, `threads` each
  std::string dtype = "bf16";  // weights and cache: "bf16", "f16" (on a GPU) or "f32" (on the CPU)
  uint64_t kv_bytes = 512u << 20;  // emulated: of the device that it stands for
  uint32_t block_tokens = 16;
  uint32_t chunk_tokens = 256;  // 0: whole prompts
  uint32_t max_context = 0;     // 0: the model's
  uint32_t max_sequences = 64;
  uint32_t step_depth = 2;
  Duration warm_up = seconds(5);  // that recording decode steps may take before the first; 0: none
  bool prefix_cache = true;
  uint32_t preempt_every = 0;  // for tests

  // Hand-off.
  std::string transport = "auto";  // "auto", "shm", "tcp"
  // cuda: where peers read the KV of this worker, and it theirs. "host": in a mirror of the GPU's
  // cache, wherever they are; "device": in the GPU's memory, by CUDA IPC, within one host.
  std::string kv_from = "host";
  bool verify_kv = true;             // believe KV that was read only if its digest is right
  std::string ucx_devices = "auto";  // kv_devices.h
  std::string ucx_port_range;

  std::string record_steps;  // a file for what each step had to do and took; empty: none
};

// What is wrong with it, as far as can be said before anything is opened or started.
status check_config(const WorkerConfig& config);

// A worker: one model, one engine, one KV cache, the prefill and the decode side over them, and the
// connections to routers and peers. Everything but the compute runs on the io_context's thread.
class Worker {
 public:
  // Loads the model and starts to listen; blocks for seconds. Errors are sentences for people.
  // `failed` is called, once, when the worker can compute no more: its process had better end.
  static result<std::unique_ptr<Worker>> start(boost::asio::io_context& io,
                                               const WorkerConfig& config,
                                               std::function<void()> failed);
  virtual ~Worker() = default;

  virtual uint16_t rpc_port() const = 0;
  virtual uint16_t metrics_port() const = 0;
  // Takes nothing new, finishes what runs (for `grace` at most), then calls `done`.
  virtual void drain(std::chrono::milliseconds grace, std::function<void()> done) = 0;
};

}  // namespace baton::worker
