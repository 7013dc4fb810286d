#pragma once

#include "router/dispatch/dispatcher.h"
#include "sim/process.h"

namespace baton::sim {

// A router process: the dispatcher that the server runs, between its workers and whoever hears the
// answers.
class RouterProcess : public Process {
 public:
  class Outside {
   public:
    virtual ~Outside() = default;
    virtual void to_worker(RouterProcess& from, WorkerId to, proto::Frame&& frame) = 0;
  };

  RouterProcess(RouterId id, RequestId first_request, const router::DispatchLimits& limits,
                const router::PlacementOptions& placement, Outside& outside, Timeline& timeline,
                ProcessClock clock);
  void start();  // its ticks; once it is owned by a shared_ptr
  void keep_roles(const router::RoleOptions& options) { dispatcher_.keep_roles(id_, options); }

  RouterId id() const { return id_; }
  const router::Dispatcher& dispatcher() const { return dispatcher_; }

  // What the network brings.
  status worker_joined(const proto::WorkerHello& hello, const std::string& address);
  void worker_lost(WorkerId worker);
  virtual void on_frame(WorkerId from, proto::Frame&& frame);

 protected:
  virtual void hear(router::Output& output) = 0;
  virtual void ticked() {}

  router::Dispatcher& dispatch() { return dispatcher_; }
  router::Actions& actions() { return actions_; }
  void carry_out();  // what is in actions()

 private:
  void tick();

  const RouterId id_;
  Outside& outside_;
  router::Dispatcher dispatcher_;
  router::Actions actions_, spare_;
};

}  // namespace baton::sim
