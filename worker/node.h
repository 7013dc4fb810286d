#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/process_metrics.h"
#include "common/device/device.h"
#include "common/engine/step_engine.h"
#include "common/engine/step_runner.h"
#include "common/kvcache/layout.h"
#include "common/kvcache/model_key.h"
#include "common/latency/profile.h"
#include "common/model/model.h"
#include "common/net/http_endpoint.h"
#include "kvtransfer/loopback_transport.h"
#include "worker/handoff_loop.h"
#include "worker/pairing.h"
#include "worker/rank_group.h"
#include "worker/sessions.h"
#include "worker/step_loop.h"
#include "worker/step_recorder.h"
#include "worker/step_times.h"
#include "worker/worker.h"
#include "worker/worker_core.h"

// Private to worker/: everything a worker is made of, in the order it is built.
namespace baton::worker {

// What others hear of the model, and what its cache looks like.
struct ServedModel {
  kvcache::ModelKey key;
  std::string numerics;
  kvcache::KvLayout layout;
  uint32_t vocab_size = 0;
  std::vector<TokenId> eos;
};

class Node final : public Worker, private CoreHost {
 public:
  Node(boost::asio::io_context& io, const WorkerConfig& config, std::function<void()> failed);
  ~Node() override;

  status start();
  uint16_t rpc_port() const override { return sessions_.port(); }
  uint16_t metrics_port() const override { return http_->port(); }
  void drain(milliseconds grace, std::function<void()> done) override;

 private:
  // building, in node_build.cc
  status make_device();
  bool is_emulated() const { return config_.device == "emulated"; }
  status load_model();
  status start_ranks(const formats::ModelFiles& files);
  status attach_ranks();
  status emulate_model();
  engine::StepLimits step_limits(uint32_t longest) const;
  uint32_t blocks_that_fit() const;
  status make_core();
  RequestLimits request_limits() const;
  bool decodes() const { return config_.auto_role || config_.role != proto::ROLE_PREFILL; }
  bool hands_over() const { return config_.auto_role || config_.role != proto::ROLE_MIXED; }
  bool reads_on_device() const { return config_.kv_from == "device" && hands_over(); }
  bool needs_host_cache() const;
  result<std::unique_ptr<kvtransfer::DeviceReads>> make_device_reads();
  kvcache::KvLayout own_layout() const;
  status use_device_cache();
  result<std::unique_ptr<kvtransfer::Transport>> make_transport();
  status make_engine();
  latency::StepModel prior() const;

  status serve();
  void fail(const Error& why);

  // routers
  proto::WorkerHello hello() const;
  void on_frame(RouterId router, proto::Frame&& frame);
  void router_lost(RouterId router);
  uint32_t kv_bytes_per_token() const;
  double profile_bytes_scale() const;  // with a profile
  proto::Load load() const;
  void send_load();
  void tick();

  // peers
  result<WorkerId> on_pair(const proto::PairRequest& request, proto::PairReply& reply);

  // CoreHost
  void send(RouterId router, const proto::Frame& frame) override;
  uint32_t protocol(RouterId router) const override { return sessions_.protocol(router); }
  void work_added() override;
  void handoff_touched() override;
  void load_changed() override { send_load(); }
  void work_came() override;
  void peer_lost(WorkerId worker) override;

  net::HttpHandlers http_handlers();
  void update_gauges();

  boost::asio::io_context& io_;
  const WorkerConfig config_;
  const WorkerId id_;
  Metrics metrics_;
  ProcessMetrics process_metrics_{metrics_};

  std::vector<uint32_t> gpus_;  // of its ranks, on cuda
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<RankGroup> ranks_;     // null where this process computes the model alone
  std::unique_ptr<model::Model> model_;  // none on an emulated device
  std::optional<latency::Profile> profile_;
  ServedModel served_;
  engine::StepLimits limits_;
  uint32_t num_blocks_ = 0;

  device::Buffer device_cache_;                   // empty where the host's side is all there is
  std::unique_ptr<kvtransfer::LoopbackHub> hub_;  // of one that stays mixed, alone on it
  std::unique_ptr<WorkerCore> core_;
  std::optional<HandoffLoop> handoff_loop_;
  engine::KvMemory kv_;
  std::unique_ptr<engine::StepEngine> engine_;
  std::optional<StepTimes> step_times_;
  std::optional<StepRecorder> step_recorder_;
  std::optional<StepLoop> step_loop_;

  Sessions sessions_;
  Pairing pairing_;
  std::unique_ptr<net::HttpEndpoint> http_;
  const std::shared_ptr<void> alive_ = std::make_shared<char>();  // handlers may outlive this
  boost::asio::steady_timer tick_timer_;
  boost::asio::steady_timer load_timer_;
  bool load_is_due_ = false;  // at load_timer_
  std::string last_load_;     // serialized
  TimePoint last_load_at_{};

  std::function<void()> failed_;

  TimePoint drain_until_;
  std::function<void()> drained_;
};

}  // namespace baton::worker
