#include "router/roles/role_controller.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace baton::router {
namespace {

constexpr uint32_t kSmallPool = 10;

uint32_t workers_for(double demand, double busy, uint32_t least) {
  return std::max(least, static_cast<uint32_t>(std::ceil(std::min(demand / busy, 1e6))));
}

}  // namespace

RoleController::Counts RoleController::count(std::span<const RoleWorker> workers) {
  Counts n;
  for (const RoleWorker& w : workers) {
    n.prefill += w.role == proto::ROLE_PREFILL;
    n.decode += w.role == proto::ROLE_DECODE;
    n.mixed += w.role == proto::ROLE_MIXED;
  }
  return n;
}

void RoleController::note_roles(std::span<const RoleWorker> workers, TimePoint now) {
  std::map<WorkerId, Held> held;
  for (const RoleWorker& w : workers) {
    const auto known = held_.find(w.id);
    const bool same = known != held_.end() && known->second.role == w.role;
    held[w.id] = same ? known->second : Held{w.role, now};
  }
  held_ = std::move(held);
}

std::optional<RoleFlip> RoleController::decide(std::span<const RoleWorker> workers,
                                               const RoleDemand& demand, TimePoint now) {
  note_roles(workers, now);
  const Counts n = count(workers);
  const bool served = n.mixed > 0 || (n.prefill > 0 && n.decode > 0);
  std::optional<RoleFlip> flip;
  if (!served) {
    if (!unserved_since_) unserved_since_ = now;
    flip = fill(workers, n, now);
  } else {
    unserved_since_.reset();
    const Duration between = n.all() > kSmallPool
                                 ? options_.between * kSmallPool / static_cast<int>(n.all())
                                 : options_.between;
    if (last_flip_ != TimePoint{} && now - last_flip_ < between) return std::nullopt;
    flip = settle_mixed(workers, n, demand);
    if (!flip) flip = balance(workers, n, demand, now);
  }
  if (flip) last_flip_ = now;
  return flip;
}

std::optional<RoleFlip> RoleController::fill(std::span<const RoleWorker> workers, const Counts& n,
                                             TimePoint now) {
  if (now - *unserved_since_ < options_.unserved_after) return std::nullopt;
  const proto::Role from = n.prefill > 0 ? proto::ROLE_PREFILL : proto::ROLE_DECODE;
  const proto::Role missing = n.prefill > 0 ? proto::ROLE_DECODE : proto::ROLE_PREFILL;
  const bool alone = n.prefill + n.decode == 1;
  return best(workers, from, alone ? proto::ROLE_MIXED : missing, std::nullopt);
}

// Of the busier role, as a share of what it should be; a mixed worker is half of each.
double RoleController::busiest(const Counts& n, const RoleDemand& demand) const {
  const auto share = [&](uint32_t own, double of) {
    const double there = own + n.mixed / 2.0;
    return there > 0 ? of / there / options_.busy : 1e9;
  };
  return std::max(share(n.prefill, demand.prefill), share(n.decode, demand.decode));
}

// First a decode worker, which can serve short prompts by itself while there is no pair.
std::optional<RoleFlip> RoleController::settle_mixed(std::span<const RoleWorker> workers,
                                                     const Counts& n,
                                                     const RoleDemand& demand) const {
  if (n.mixed <= options_.min_mixed || n.all() < 2) return std::nullopt;
  Counts more_prefill = n, more_decode = n;
  --more_prefill.mixed, ++more_prefill.prefill;
  --more_decode.mixed, ++more_decode.decode;
  const std::pair as_prefill(busiest(more_prefill, demand), n.prefill);
  const std::pair as_decode(busiest(more_decode, demand), n.decode);
  const bool prefill = n.decode > 0 && (n.prefill == 0 || as_prefill < as_decode);
  const proto::Role to = prefill ? proto::ROLE_PREFILL : proto::ROLE_DECODE;
  return best(workers, proto::ROLE_MIXED, to, std::nullopt);
}

std::optional<RoleFlip> RoleController::balance(std::span<const RoleWorker> workers,
                                                const Counts& n, const RoleDemand& demand,
                                                TimePoint now) const {
  const double before = busiest(n, demand);
  if (before < options_.move_above) return std::nullopt;
  const auto worth = [&](const Counts& then) {
    return busiest(then, demand) < before * (1 - options_.margin);
  };
  const TimePoint since = now - options_.dwell;
  if (n.prefill > std::max(options_.min_prefill, 1u)) {
    Counts then = n;
    --then.prefill, ++then.decode;
    if (worth(then)) return best(workers, proto::ROLE_PREFILL, proto::ROLE_DECODE, since);
  }
  if (n.decode > std::max(options_.min_decode, 1u)) {
    Counts then = n;
    ++then.prefill, --then.decode;
    if (worth(then)) return best(workers, proto::ROLE_DECODE, proto::ROLE_PREFILL, since);
  }
  return std::nullopt;
}

// Who has least of the old role left to do, of those that have had it since then.
std::optional<RoleFlip> RoleController::best(std::span<const RoleWorker> workers, proto::Role from,
                                             proto::Role to, std::optional<TimePoint> since) const {
  const auto left = [](const RoleWorker& w) { return std::tuple(w.queued, w.sequences, w.id); };
  const auto decoding = [](const RoleWorker& w) { return std::tuple(w.sequences, w.queued, w.id); };
  const RoleWorker* chosen = nullptr;
  for (const RoleWorker& w : workers) {
    if (w.role != from || !w.may_move || (since && held_.at(w.id).since > *since)) continue;
    const bool better =
        chosen == nullptr ||
        (from == proto::ROLE_PREFILL ? left(w) < left(*chosen) : decoding(w) < decoding(*chosen));
    if (better) chosen = &w;
  }
  if (chosen == nullptr) return std::nullopt;
  return RoleFlip{chosen->id, from, to};
}

DesiredWorkers RoleController::desired(std::span<const RoleWorker> workers,
                                       const RoleDemand& demand) const {
  const Counts n = count(workers);
  DesiredWorkers out{.mixed = options_.min_mixed};
  if (n.mixed > 0 && n.prefill + n.decode == 0) {
    out.mixed = workers_for(demand.prefill + demand.decode, options_.busy,
                            std::max(options_.min_mixed, 1u));
    return out;
  }
  out.prefill = workers_for(demand.prefill, options_.busy, options_.min_prefill);
  out.decode = workers_for(demand.decode, options_.busy, options_.min_decode);
  return out;
}

}  // namespace baton::router
