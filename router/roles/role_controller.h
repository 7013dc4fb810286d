#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/proto/worker.pb.h"

namespace baton::router {

struct RoleOptions {
  // Workers of a role, fixed ones among them, that are left it whatever the traffic is.
  uint32_t min_prefill = 1, min_decode = 1, min_mixed = 0;
  Duration window = seconds(20);         // over which demand is taken
  Duration dwell = seconds(15);          // of a worker in a role, before traffic moves it again
  Duration between = seconds(2);         // two flips; less in a pool of more than ten
  Duration unserved_after = seconds(1);  // a role that is missing is filled
  // Of the workers that a role has the traffic is to need so many at most: what is known of it is
  // of the past, and of others like it.
  double busy = 0.9;
  // Of that: nobody moves while both roles are below it, ...
  double move_above = 0.6;
  // ... nor if the busier role would not be so much less busy.
  double margin = 0.1;
};

// A worker as the controller sees it. Those that drain are left out.
struct RoleWorker {
  WorkerId id;
  proto::Role role = proto::ROLE_MIXED;
  bool may_move = false;   // its role is auto
  double queued = 0;       // seconds that its prompts will take
  uint32_t sequences = 0;  // that decode there
};

// What the traffic asks for, in workers that do nothing else, with room for what comes at once.
struct RoleDemand {
  double prefill = 0;
  double decode = 0;
};

struct RoleFlip {
  WorkerId worker;
  proto::Role from = proto::ROLE_UNSPECIFIED, to = proto::ROLE_UNSPECIFIED;
};

struct DesiredWorkers {
  uint32_t prefill = 0, decode = 0, mixed = 0;
};

// Which role each worker of one model is to have. Pure: knows no clock, keeps only since when each
// worker has its role. Equal views give equal flips: two that decide at once move the same worker.
//
// In the order of these, at most one at a time:
//  1. Nobody could serve (no mixed worker, and a role of the pair is missing): one worker fills the
//     missing role, or becomes mixed, if it is alone.
//  2. A mixed worker of role auto takes the role that is missing, or busier.
//  3. The less busy role gives a worker to the busier one, if that is worth it (RoleOptions).
// Workers whose role is fixed count, but do not move. The last worker of a role of the pair stays.
class RoleController {
 public:
  explicit RoleController(const RoleOptions& options) : options_(options) {}

  std::optional<RoleFlip> decide(std::span<const RoleWorker> workers, const RoleDemand& demand,
                                 TimePoint now);

  // So many, each as busy as it should be, would do: for an autoscaler. Mixed ones are wanted only
  // where the workers are mixed and stay so.
  DesiredWorkers desired(std::span<const RoleWorker> workers, const RoleDemand& demand) const;

 private:
  struct Counts {
    uint32_t prefill = 0, decode = 0, mixed = 0;
    uint32_t all() const { return prefill + decode + mixed; }
  };
  static Counts count(std::span<const RoleWorker> workers);
  double busiest(const Counts& n, const RoleDemand& demand) const;
  void note_roles(std::span<const RoleWorker> workers, TimePoint now);
  std::optional<RoleFlip> fill(std::span<const RoleWorker> workers, const Counts& n, TimePoint now);
  std::optional<RoleFlip> settle_mixed(std::span<const RoleWorker> workers, const Counts& n,
                                       const RoleDemand& demand) const;
  std::optional<RoleFlip> balance(std::span<const RoleWorker> workers, const Counts& n,
                                  const RoleDemand& demand, TimePoint now) const;
  std::optional<RoleFlip> best(std::span<const RoleWorker> workers, proto::Role from,
                               proto::Role to, std::optional<TimePoint> since) const;

  struct Held {
    proto::Role role = proto::ROLE_UNSPECIFIED;
    TimePoint since;
  };
  const RoleOptions options_;
  std::map<WorkerId, Held> held_;
  std::optional<TimePoint> unserved_since_;
  TimePoint last_flip_{};
};

}  // namespace baton::router
