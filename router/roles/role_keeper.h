#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "router/placement/worker_pool.h"
#include "router/roles/demand_window.h"
#include "router/roles/role_controller.h"

namespace baton::router {

// Whether this router leads: workers of a role that may change say which routers are connected to
// them, and the smallest id that most of `workers` report is the leader. No worker reports: nobody.
// While connections come and go two routers may both think so, for about a Load's time: a flip is
// one worker's new role, given twice it is the same, and a wrong one is mended like a change of
// traffic.
bool leads(RouterId self, const std::vector<const Worker*>& workers);
// Routers that most of them report; at least 1.
uint32_t live_routers(const std::vector<const Worker*>& workers);

// What the traffic asks of workers like these, by their own step times, with room for what comes at
// once: of the requests of either role a twentieth may miss its target. `routers`: that share the
// traffic; this one has seen `seen` of it.
//
// Prefill: of k workers that are busy for p seconds a second a prompt waits longer than t with
//   (p / k)^(√(2(k + 1)) − 1) · exp(−2t·(k − p)·E[s] / E[s²]):
// that it waits at all (Sakasegawa, 1977), and an M/G/k queue in heavy traffic (Kingman, 1962,
// Köllerström, 1974); t is what a prompt leaves of the target.
// Decode: where N sequences are on average, N + 1.645·√N are seldom exceeded (an M/G/∞ queue's are
// Poisson), and so many must fit, with steps as short as short answers need them.
RoleDemand demand_of(const DemandWindow::Rates& seen, uint32_t routers,
                     const std::vector<const Worker*>& workers);

// Moves roles, for the workers of every model: hears what comes in and goes out, and says whom to
// tell what. Pure. One thread.
class RoleKeeper {
 public:
  // What is known of one model's workers.
  struct Model {
    explicit Model(const RoleOptions& options) : window(options.window), controller(options) {}
    DemandWindow window;
    RoleController controller;
    bool managed = false;  // a worker's role is auto
    bool leads = false;
    RoleDemand demand;
    DesiredWorkers desired;
    // A flip that was ordered and is not seen yet.
    std::optional<RoleFlip> ordered;
    TimePoint ordered_at;
  };
  using Flips = std::map<std::pair<proto::Role, proto::Role>, uint64_t>;  // [from, to]

  RoleKeeper(RouterId self, const RoleOptions& options) : self_(self), options_(options) {}

  // A request of the model came; `tokens` of its prompt are not cached where it is likely to go.
  void arrived(const WorkerPool& pool, std::string_view model, uint64_t tokens, uint64_t prompt,
               const SloTarget& target, TimePoint now);
  void refused(std::string_view model, TimePoint now);
  void delivered(std::string_view model, uint32_t tokens, TimePoint now);

  // To be called often; looks four times a second. Appends the flips to be ordered.
  void tick(const WorkerPool& pool, TimePoint now, std::vector<RoleFlip>& flips);

  const std::map<std::string, Model, std::less<>>& models() const { return models_; }
  const Flips& flips() const { return flips_; }  // that this router ordered and workers did

 private:
  Model& of(std::string_view model);
  void look(Model& model, const std::vector<const Worker*>& workers, TimePoint now,
            std::vector<RoleFlip>& flips);
  bool await_ordered(Model& model, const std::vector<const Worker*>& workers, TimePoint now);

  const RouterId self_;
  const RoleOptions options_;
  std::map<std::string, Model, std::less<>> models_;
  Flips flips_;
  TimePoint next_look_{};
};

}  // namespace baton::router
