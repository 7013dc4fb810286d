#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/metrics.h"
#include "common/engine/slots.h"
#include "common/kvcache/block_pool.h"
#include "common/kvcache/digest_table.h"
#include "common/kvcache/prefix.h"
#include "common/serving/service_host.h"
#include "common/serving/step_client.h"
#include "decode/service.h"
#include "kvtransfer/handoff_driver.h"
#include "prefill/service.h"
#include "worker/request_spec.h"

namespace baton::worker {

struct CoreConfig {
  proto::Role role = proto::ROLE_MIXED;  // at the start, if it is auto
  bool auto_role = false;                // routers may change it
  kvtransfer::HandoffConfig handoff;
  kvcache::ModelKey model_key;
  engine::StepLimits limits;
  RequestLimits requests;
  uint32_t num_blocks = 0;         // of the cache that the engine computes in
  uint32_t chunk_tokens = 0;       // as prefill::SchedulerConfig
  uint64_t layer_token_bytes = 0;  // what the cache's stand for; 0: themselves
  bool prefix_cache = true;
  kvcache::PrefixHashKind prefix_hash = kvcache::PrefixHashKind::kSha256;
  uint32_t preempt_every = 0;  // for tests
};

// Between two words of its load that a worker says because work came.
inline constexpr Duration kLoadSoon = milliseconds(5);

// What the process around a core does for it.
class CoreHost : public serving::ServiceHost {
 public:
  virtual void load_changed() = 0;              // routers should hear of it at once
  virtual void work_came() = 0;                 // of one router; the others should hear of it soon
  virtual void peer_lost(WorkerId worker) = 0;  // pair with it anew
};

// All that a worker decides, between its sockets and its engine: routers' messages in and out,
// block accounting, both schedulers, the hand-off. It has no thread, socket or clock: the server
// and the simulator run the same. One thread, the control thread, calls everything; `now` never
// goes back.
class WorkerCore final : private kvtransfer::HandoffListener {
 public:
  // Takes the transport and allocates the host's cache with it, unless peers' caches are read into
  // a GPU's. Host and metrics outlive the core.
  static result<std::unique_ptr<WorkerCore>> create(
      const CoreConfig& config, std::unique_ptr<kvtransfer::Transport> transport, CoreHost& host,
      Metrics& metrics, std::unique_ptr<kvtransfer::DeviceReads> device_reads = nullptr);

  // --- routers ---
  // A Submit, Reserve, Retarget, Cancel or SetRole.
  void on_frame(RouterId router, const proto::Frame& frame, TimePoint now);
  void router_lost(RouterId router, TimePoint now);

  // --- peers ---
  std::string hello() const;  // to be sent to them
  // Theirs; the worker's id. A refusal is a sentence with both sides' values.
  result<WorkerId> add_peer(const std::string& hello, TimePoint now);
  void remove_peer(WorkerId peer, TimePoint now);

  // --- time ---
  void expire(TimePoint now);  // deadlines; call every 50 ms or so
  void drain() { draining_ = true; }
  bool draining() const { return draining_; }
  proto::Role role() const { return role_; }
  bool idle() const { return prefill_->idle() && decode_->idle(); }

  // --- what drives it ---
  kvtransfer::HandoffDriver& driver() { return *driver_; }
  std::vector<serving::StepClient*> step_clients() { return {&*decode_, &*prefill_}; }

  // --- views ---
  // With `costs`, what its steps take, it says that and how long its queue will take, too.
  proto::Load load(const latency::StepCosts* costs = nullptr) const;
  // Where several routers are connected: what this one is to hear of the others.
  void add_others(RouterId told, proto::Load& load) const;
  const kvcache::BlockPool& pool() const { return pool_; }
  const engine::SlotAllocator& slots() const { return slots_; }
  const kvtransfer::HandoffDriver& driver() const { return *driver_; }
  prefill::Snapshot prefill() const { return prefill_->snapshot(); }
  decode::Snapshot decode() const { return decode_->snapshot(); }

 private:
  WorkerCore(const CoreConfig& config, CoreHost& host, Metrics& metrics);
  void make_services();

  result<engine::Request> parse(RouterId router, const proto::RequestSpec& spec, TimePoint now);
  bool is_here(const RequestKey& key) const;
  void fail(RouterId router, const proto::RequestSpec& spec, const Error& why);
  void submit(RouterId router, const proto::Submit& submit, TimePoint now);
  void reserve(RouterId router, const proto::Reserve& reserve, TimePoint now);
  void cancel(RouterId router, const proto::Cancel& cancel, TimePoint now);
  void retarget(RouterId router, const proto::Retarget& retarget, TimePoint now);
  void set_role(RouterId router, proto::Role role);

  void joined(const kvtransfer::Joined& joined, TimePoint now) override;
  void sink_failed(const RequestKey& key, const Error& why) override;
  void sink_released(const RequestKey& key, std::span<const BlockId> blocks) override;
  void source_released(const kvtransfer::SourceReleased& released) override;
  void source_failed(const kvtransfer::SourceFailed& failed) override;
  void source_refused(const RequestKey& key, Duration retry_after) override;
  void source_sink_lost(const RequestKey& key, const Error& why, TimePoint now) override;
  void peer_up(WorkerId worker, std::string_view transport) override;
  void peer_lost(WorkerId worker, const Error& why) override;

  const CoreConfig config_;
  CoreHost& host_;
  Metrics& metrics_;
  std::unique_ptr<kvtransfer::HandoffDriver> driver_;
  kvcache::BlockPool pool_;
  kvcache::PrefixHasher hasher_;
  kvcache::DigestTable digests_;
  engine::SlotAllocator slots_;
  std::optional<prefill::Service> prefill_;  // both are there once create() is done
  std::optional<decode::Service> decode_;
  proto::Role role_;
  bool draining_ = false;
  uint64_t unshared_ = 0;  // salts of requests without prefix cache
};

}  // namespace baton::worker
