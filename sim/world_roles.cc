// Roles that move in a world where things go wrong.
#include <fmt/format.h>

#include <algorithm>

#include "sim/world.h"

namespace baton::sim {
namespace {

constexpr double kRolesMove = 0.35;  // of worlds
constexpr double kByRouters = 0.4;   // of these, by their controller; else at random
constexpr double kAuto = 0.7;        // of the workers there
constexpr double kFlip = 0.3;        // each tenth of a second
constexpr Duration kCalmRoleEvery = milliseconds(300);

}  // namespace

void World::choose_roles() {
  roles_move_ = role_random_.chance(kRolesMove);
  routers_move_them_ = roles_move_ && role_random_.chance(kByRouters);
}

void World::draw_auto(WorkerShape& shape) {
  shape.auto_role = role_random_.chance(kAuto);
  if (shape.auto_role) {
    shape.protocol = net::kProtocolMax;
  } else if (role_random_.chance(0.3)) {
    shape.protocol = std::min(shape.protocol, net::kProtocolMax - 1);
  }
}

// Whether somebody could serve if it had that role.
bool World::serves_with(const Worker& worker, proto::Role role) {
  bool prefill = false, decode = false, mixed = false;
  for (const Site* site : living()) {
    const proto::Role r = site->worker.get() == &worker ? role : site->worker->core().role();
    prefill |= r == proto::ROLE_PREFILL;
    decode |= r == proto::ROLE_DECODE;
    mixed |= r == proto::ROLE_MIXED;
  }
  return mixed || (prefill && decode);
}

// Where nothing may be lost, as a controller would: never the last of a role that is needed.
void World::flip_some_role() {
  if (!role_random_.chance(kFlip)) return;
  const auto sites = living();
  if (sites.empty()) return;
  const Worker& worker = *sites[role_random_.pick(sites.size())]->worker;
  const auto role = static_cast<proto::Role>(role_random_.between(1, 3));
  if (!worker.setup().core.auto_role) return;
  if (plan_.loses_nothing() && !serves_with(worker, role)) return;
  note(fmt::format("{} is to be {}", worker.name(), proto::Role_Name(role)));
  order_role(worker, role);
}

void World::order_role(const Worker& worker, proto::Role role) {
  proto::Frame frame;
  frame.mutable_set_role()->set_role(role);
  const auto& router = routers_[role_random_.pick(routers_.size())];
  to_worker(*router, worker.id(), std::move(frame));
}

// All is well again: each has the role that it started with.
void World::calm_roles() {
  if (!roles_move_ || routers_move_them_) return;
  for (const Site* site : living()) {
    const Worker& worker = *site->worker;
    if (!worker.setup().core.auto_role) continue;
    if (worker.core().role() != worker.setup().core.role) {
      order_role(worker, worker.setup().core.role);
    }
  }
  timeline_.after(kCalmRoleEvery, [this] { calm_roles(); });
}

}  // namespace baton::sim
