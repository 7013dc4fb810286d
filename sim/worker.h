#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/metrics.h"
#include "common/net/protocol.h"
#include "sim/engine.h"
#include "sim/process.h"
#include "worker/worker_core.h"

namespace baton::sim {

struct WorkerShape {
  WorkerId id;
  proto::Role role = proto::ROLE_MIXED;
  uint32_t num_blocks = 32;
  uint32_t block_tokens = 8;
  std::vector<uint32_t> shard_heads;  // as KvLayout::shard_heads: a worker of several ranks
  uint32_t chunk_tokens = 16;
  uint32_t max_sequences = 8;
  uint32_t step_depth = 2;
  uint32_t preempt_every = 0;
  uint32_t protocol = net::kProtocolMax;  // that it speaks with routers
  Duration layer_time = microseconds(200);
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
  };

  static constexpr uint32_t kLayers = 3, kKvHeads = 2;
  static kvcache::KvLayout layout(uint32_t block_tokens);

  Worker(const WorkerShape& shape, std::unique_ptr<kvtransfer::Transport> transport,
         Outside& outside, Timeline& timeline, ProcessClock clock);
  void start();  // its ticks; once it is owned by a shared_ptr

  WorkerId id() const { return shape_.id; }
  const WorkerShape& shape() const { return shape_; }
  worker::WorkerCore& core() { return *core_; }
  const worker::WorkerCore& core() const { return *core_; }
  std::span<std::byte> block(BlockId block) const { return cache_.block(block); }
  const kvtransfer::Endpoint& endpoint() const;
  proto::WorkerHello hello(const std::string& address) const;

  // Whatever can be done now; true if something was.
  bool progress();
  // When progress() has something to do next, in true time.
  TimePoint next_time() const;

 private:
  bool poll_handoff();
  bool plan();
  void tick();
  void send_load();
  engine::StepLimits limits() const;

  void send(RouterId router, const proto::Frame& frame) override;
  uint32_t protocol(RouterId) const override { return shape_.protocol; }
  void work_added() override { work_added_ = true; }
  void handoff_touched() override { touched_ = true; }
  void load_changed() override { send_load(); }
  void peer_lost(WorkerId worker) override;

  const WorkerShape shape_;
  Outside& outside_;
  Metrics metrics_;
  std::unique_ptr<worker::WorkerCore> core_;
  kvcache::KvCache cache_;
  std::vector<serving::StepClient*> clients_;
  std::vector<std::unique_ptr<engine::StepBatch>> batches_;
  std::vector<engine::StepBatch*> free_;
  std::optional<Engine> engine_;
  uint64_t next_step_ = 1;
  bool work_added_ = false, touched_ = true;
  std::string last_load_;
};

}  // namespace baton::sim
