#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/metrics.h"
#include "common/latency/profile.h"
#include "common/latency/step_model.h"
#include "common/net/protocol.h"
#include "sim/process.h"
#include "sim/virtual_engine.h"
#include "worker/worker_core.h"

namespace baton::sim {

// What a worker is made of.
struct WorkerSetup {
  worker::CoreConfig core;  // its id is in core.handoff.worker
  std::string name;         // empty: by its id
  std::string model = "m";
  uint32_t max_sequences = 8;             // that it says it decodes at once
  uint32_t step_depth = 2;                // steps given to the engine at once
  uint32_t protocol = net::kProtocolMax;  // that it speaks with routers
  Duration tick = milliseconds(20);       // between its looks at deadlines and its words of load
  Duration load_every = Duration::max();  // a load that stays the same is said again
  uint32_t num_routers = 0;               // as it tells; if several, soon of work that came
  VirtualEngine::Maker make_engine;
  // What its steps take, and its hand-offs, as it tells routers; nothing: it does not.
  std::optional<latency::Profile> profile;
  bool learns = false;  // what it tells of its steps, from what they took, as the server does

  WorkerId id() const { return core.handoff.worker; }
};

// A worker process: the core that the server runs, over an engine in virtual time.
class Worker final : public Process, private worker::CoreHost {
 public:
  // What a worker sends and asks for; the network does it.
  class Outside {
   public:
    virtual ~Outside() = default;
    virtual void to_router(Worker& from, RouterId router, const proto::Frame& frame) = 0;
    virtual void to_all_routers(Worker& from, const proto::Frame& frame) = 0;
    virtual void gave_up(Worker& by, WorkerId peer) = 0;
    virtual void woken(Worker&) {}  // progress() may have something to do
    // Connected to it, ascending; asked for where its role is auto.
    virtual std::vector<RouterId> routers_of(const Worker&) { return {}; }
  };

  // A setup that cannot be aborts.
  Worker(const WorkerSetup& setup, std::unique_ptr<kvtransfer::Transport> transport,
         Outside& outside, Timeline& timeline, ProcessClock clock);
  // Its ticks, the first one `phase` from now; once it is owned by a shared_ptr.
  void start(Duration phase = Duration::zero());

  WorkerId id() const { return setup_.id(); }
  const WorkerSetup& setup() const { return setup_; }
  uint32_t num_blocks() const { return setup_.core.num_blocks; }
  worker::WorkerCore& core() { return *core_; }
  const worker::WorkerCore& core() const { return *core_; }
  std::span<std::byte> block(BlockId block) const { return cache_.block(block); }
  const kvtransfer::Endpoint& endpoint() const;
  proto::WorkerHello hello(const std::string& address) const;
  proto::Load load();

  // Whatever can be done now; true if something was.
  bool progress();
  // When progress() has something to do next, in true time.
  TimePoint next_time() const;

 private:
  bool poll_handoff();
  bool plan();
  void on_layer(const engine::StepBatch& batch, uint32_t layer);
  void on_done(engine::StepBatch& batch);
  void tick();
  void send_load();

  void send(RouterId router, const proto::Frame& frame) override;
  uint32_t protocol(RouterId) const override { return setup_.protocol; }
  void work_added() override;
  void handoff_touched() override;
  void load_changed() override { send_load(); }
  void work_came() override;
  void peer_lost(WorkerId worker) override;

  const WorkerSetup setup_;
  Outside& outside_;
  Metrics metrics_;
  std::unique_ptr<worker::WorkerCore> core_;
  kvcache::KvCache cache_;
  std::vector<serving::StepClient*> clients_;
  std::vector<std::unique_ptr<engine::StepBatch>> batches_;
  std::vector<engine::StepBatch*> free_;
  std::unique_ptr<VirtualEngine> engine_;
  uint64_t next_step_ = 1;
  bool work_added_ = false, touched_ = true;
  std::optional<latency::StepModel> learnt_;
  proto::Frame load_;                  // scratch
  std::string load_text_, last_load_;  // scratch; as routers have it
  TimePoint last_load_at_{};
  bool load_is_due_ = false;
};

}  // namespace baton::sim
