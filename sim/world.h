#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kvtransfer/loopback_transport.h"
#include "sim/fault_worker.h"
#include "sim/faults.h"
#include "sim/network.h"
#include "sim/router.h"
#include "sim/trace.h"
#include "sim/worker.h"

namespace baton::sim {

struct RunOptions {
  uint64_t seed = 1;
  uint32_t requests = 16;
  std::FILE* trace = nullptr;  // where each event is told
};

struct RunResult {
  std::string violation;  // the first, with its time; empty: none
  Duration at{};          // when that was
  uint64_t events = 0;
  Tally tally;
  FaultCounts faults{};
  uint64_t mismatches = 0, rereads = 0;
  uint64_t flips = 0;  // of roles, ordered
  uint64_t hash = 0;   // of all that happened: two runs of one seed have the same
};

// A whole cluster on a virtual clock, in which a seed says who asks for what and what goes wrong:
// the routers' dispatcher and the workers' core, schedulers, accounting and hand-off are those of
// the servers. After every event it is checked that nothing is wrong, and at the end that nothing
// is left.
class World final : public Worker::Outside, public Router::Outside {
 public:
  explicit World(const RunOptions& options);
  RunResult run();

 private:
  // --- what there is ---
  void make_cluster();
  void start_worker(Site& site, const WorkerShape& shape);
  void start_router();
  WorkerShape draw_shape(proto::Role role);
  ProcessClock draw_clock();

  // --- what happens ---
  void schedule_requests();
  void submit(uint32_t index);
  Router::Request draw_request();
  void schedule_misfortune();
  void schedule_checks();
  void misfortune();
  void kill_worker();
  void pause_process();
  void cut_two();
  void damage_cache();
  void kill_router();
  // roles, in world_roles.cc: at random, or by the routers' own controller
  void choose_roles();
  void draw_auto(WorkerShape& shape);
  void flip_some_role();
  bool serves_with(const Worker& worker, proto::Role role);
  void order_role(const Worker& worker, proto::Role role);
  void calm_roles();
  void restart(Site& site, WorkerSetup setup, const kvtransfer::Endpoint& former);

  // --- time ---
  void run_until(TimePoint end);
  TimePoint next_time();
  void settle();
  bool over();

  // --- what must hold ---
  void violation(const std::string& what) override;
  void check_worker(Site& site);
  void check_silent_blocks(Site& site);
  void check_bounds(const Worker& worker);
  void check_mismatches(const Worker& worker);
  void count_reads();
  void check_peers(const Worker& worker);
  static std::string held_by(const Worker& worker);
  bool at_rest();
  void check_end();

  // Outside of workers and routers
  void to_router(Worker& from, RouterId router, const proto::Frame& frame) override;
  void to_all_routers(Worker& from, const proto::Frame& frame) override;
  void gave_up(Worker& by, WorkerId peer) override { network_.gave_up(by, peer); }
  std::vector<RouterId> routers_of(const Worker& worker) override {
    return network_.routers_of(worker);
  }
  void to_worker(RouterProcess& from, WorkerId to, proto::Frame&& frame) override;

  std::vector<Site*> living();
  void count(Fault fault) { ++result_.faults[static_cast<size_t>(fault)]; }
  void note(std::string_view what);

  // A block that nobody may write to: what it held.
  struct Silent {
    kvcache::BlockState state = kvcache::BlockState::kActive;
    Generation generation;
    uint64_t hash = 0;
  };

  const RunOptions options_;
  Random random_, fault_random_, client_random_;
  Random role_random_;  // of its own: worlds without roles that move are what they were
  const FaultPlan plan_;
  Timeline timeline_;
  const TimePoint begun_{seconds(100'000)};
  TimePoint calm_from_;  // no more misfortune
  std::unique_ptr<kvtransfer::LoopbackHub> hub_;
  Network network_;
  std::vector<std::shared_ptr<Router>> routers_;
  uint64_t next_worker_ = 1, next_router_ = 1;
  std::map<WorkerId, std::vector<Silent>> silent_;
  std::vector<std::vector<TokenId>> prefixes_;  // that prompts share
  std::map<WorkerId, uint64_t> mismatches_;     // digests that differed, of each worker
  uint64_t dead_mismatches_ = 0;                // of workers that are gone
  bool calm_ = false;
  bool roles_move_ = false, routers_move_them_ = false;
  RunResult result_;
  Trace trace_;
};

RunResult run_world(const RunOptions& options);

}  // namespace baton::sim
