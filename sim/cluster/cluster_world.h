#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/cluster_run.h"
#include "sim/cluster/fabric.h"
#include "sim/random.h"
#include "sim/worker.h"

// Private to sim/cluster: the world that run_cluster() runs.
namespace baton::sim {

class ClusterWorld final : public Worker::Outside, public Frontend::Outside {
 public:
  ClusterWorld(const ClusterSpec& spec, const Traffic& traffic, const ClusterRunOptions& options);
  ~ClusterWorld();
  ClusterResult run();

 private:
  // A place for a worker: one process follows another there.
  struct Seat {
    const WorkerGroup* group = nullptr;
    std::string name;
    NodeLinks links;
    std::shared_ptr<Worker> worker;  // null: it is dead
    bool dirty = false;              // progress() may have something to do
    TimePoint alarm = TimePoint::max();
  };

  // --- what there is ---
  void make_seats();
  void start_worker(Seat& seat);
  void worker_died(Seat& seat);
  uint32_t output_length(uint64_t request) const;
  void schedule_failure(Seat& seat);
  Seat* seat_of(WorkerId id);

  // --- time ---
  void schedule_arrival(uint64_t request);
  void take_moment();
  void settle();
  void set_alarm(Seat& seat);
  void mark(Seat& seat);
  bool over() const;

  // --- messages, all of one latency and in order ---
  void to_router(Worker& from, RouterId router, const proto::Frame& frame) override;
  void to_all_routers(Worker& from, const proto::Frame& frame) override;
  void gave_up(Worker& by, WorkerId peer) override;
  void woken(Worker& worker) override;
  std::vector<RouterId> routers_of(const Worker& worker) override;
  void to_worker(RouterProcess& from, WorkerId to, proto::Frame&& frame) override;
  void request_ended(const Frontend& at, uint64_t request, const Outcome& outcome,
                     const std::string& why) override;
  void pair(Worker& decode, const proto::Peers& peers);
  using Mail = std::unique_ptr<proto::Frame>;
  Mail copy_of(const proto::Frame& frame);
  std::vector<Mail>* spare_of(const proto::Frame& frame);
  void post(WorkerId from, RouterId to, const proto::Frame& frame);
  void log_decision(const proto::Frame& frame, const std::string& to);
  std::string name_of(WorkerId id);

  const ClusterSpec& spec_;
  const Traffic& traffic_;
  const ClusterRunOptions options_;
  const TimePoint begun_{seconds(1000)};  // 0 stands for "never" in places
  const Duration latency_;
  Timeline timeline_;
  Fabric fabric_;
  Random random_;  // failures
  Random phases_;  // of workers' ticks
  std::deque<Seat> seats_;
  std::vector<Seat*> by_id_;  // [worker id - 1]; null: dead
  std::vector<Seat*> dirty_;
  std::vector<std::shared_ptr<Frontend>> routers_;
  uint64_t next_request_ = 0;
  bool enough_ = false;
  std::vector<Mail> spare_tokens_, spare_loads_;  // for their memory
  uint64_t came_ = 0, refused_ = 0;               // since the last moment
  ClusterResult result_;
};

}  // namespace baton::sim
