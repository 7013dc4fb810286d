#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/device/device.h"
#include "common/engine/engine.h"
#include "common/engine/slots.h"
#include "common/kvcache/block_pool.h"
#include "common/kvcache/digest_table.h"
#include "common/kvcache/prefix.h"
#include "common/model/model.h"
#include "common/net/http_endpoint.h"
#include "decode/service.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/handoff_driver.h"
#include "kvtransfer/loopback_transport.h"
#include "prefill/service.h"
#include "worker/handoff_loop.h"
#include "worker/pairing.h"
#include "worker/request_spec.h"
#include "worker/sessions.h"
#include "worker/step_loop.h"
#include "worker/worker.h"

// Private to worker/: everything a worker is made of, in the order it is built.
namespace baton::worker {

class Node final : public Worker,
                   private kvtransfer::HandoffListener,
                   private serving::ServiceHost {
 public:
  Node(boost::asio::io_context& io, const WorkerConfig& config);
  ~Node() override;

  status start();
  uint16_t rpc_port() const override { return sessions_.port(); }
  uint16_t metrics_port() const override { return http_->port(); }
  void drain(milliseconds grace, std::function<void()> done) override;

 private:
  // building, in node_build.cc
  status make_device();
  status load_model();
  status make_handoff();
  bool needs_host_cache() const;
  status allocate_device_cache(const kvcache::KvLayout& layout);
  result<std::unique_ptr<kvtransfer::Transport>> make_transport();
  status make_engine();
  void make_services();

  status serve();

  // routers
  proto::WorkerHello hello() const;
  void on_frame(RouterId router, proto::Frame&& frame);
  void submit(RouterId router, const proto::Submit& submit);
  void reserve(RouterId router, const proto::Reserve& reserve);
  void cancel(RouterId router, const proto::Cancel& cancel);
  void router_lost(RouterId router);
  result<engine::Request> parse(RouterId router, const proto::RequestSpec& spec);
  proto::Load load() const;
  void send_load();
  void tick();

  // peers
  result<WorkerId> on_pair(const proto::PairRequest& request, proto::PairReply& reply);
  result<WorkerId> add_peer(const std::string& hello);
  void peer_connection_lost(WorkerId peer);

  // HandoffListener
  void joined(const kvtransfer::Joined& joined) override;
  void sink_failed(const RequestKey& key, const Error& why) override;
  void sink_released(const RequestKey& key, std::span<const BlockId> blocks) override;
  void source_released(const kvtransfer::SourceReleased& released) override;
  void source_failed(const kvtransfer::SourceFailed& failed) override;
  void source_refused(const RequestKey& key, Duration retry_after) override;
  void source_sink_lost(const RequestKey& key, const Error& why) override;
  void peer_up(WorkerId worker, std::string_view transport) override;
  void peer_lost(WorkerId worker, const Error& why) override;

  // ServiceHost
  void send(RouterId router, const proto::Frame& frame) override;
  void work_added() override;
  void handoff_touched() override;

  net::HttpHandlers http_handlers();
  void update_gauges();

  boost::asio::io_context& io_;
  const WorkerConfig config_;
  const WorkerId id_;
  Metrics metrics_;

  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<model::Model> model_;
  engine::StepLimits limits_;
  uint32_t num_blocks_ = 0;
  RequestLimits request_limits_;

  std::unique_ptr<kvtransfer::LoopbackHub> hub_;  // of a mixed worker, alone on it
  std::unique_ptr<kvtransfer::HandoffDriver> driver_;
  std::optional<HandoffLoop> handoff_loop_;
  device::Buffer device_cache_;  // empty where the host's side is all there is
  engine::KvMemory kv_;
  std::optional<kvcache::BlockPool> pool_;
  std::optional<kvcache::PrefixHasher> hasher_;
  std::optional<kvcache::DigestTable> digests_;
  std::optional<engine::SlotAllocator> slots_;
  std::unique_ptr<engine::Engine> engine_;
  std::optional<prefill::Service> prefill_;
  std::optional<decode::Service> decode_;
  std::optional<StepLoop> step_loop_;

  Sessions sessions_;
  Pairing pairing_;
  std::unique_ptr<net::HttpEndpoint> http_;
  const std::shared_ptr<void> alive_ = std::make_shared<char>();  // handlers may outlive this
  boost::asio::steady_timer tick_timer_;
  std::string last_load_;  // serialized
  TimePoint last_load_at_{};
  uint64_t unshared_ = 0;  // salts of requests without prefix cache

  bool draining_ = false;
  TimePoint drain_until_;
  std::function<void()> drained_;
};

}  // namespace baton::worker
