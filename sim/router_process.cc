#include "sim/router_process.h"

#include <utility>

namespace baton::sim {
namespace {

constexpr Duration kTick = milliseconds(20);  // the server's

}  // namespace

RouterProcess::RouterProcess(RouterId id, RequestId first_request,
                             const router::DispatchLimits& limits,
                             const router::PlacementOptions& placement, Outside& outside,
                             Timeline& timeline, ProcessClock clock)
    : Process("router-" + std::to_string(id.value), timeline, clock),
      id_(id),
      outside_(outside),
      dispatcher_(first_request, limits, placement) {}

void RouterProcess::start() { tick(); }

void RouterProcess::tick() {
  dispatcher_.tick(local_now(), actions_);
  carry_out();
  ticked();
  later(kTick, [this] { tick(); });
}

status RouterProcess::worker_joined(const proto::WorkerHello& hello, const std::string& address) {
  const status joined = dispatcher_.worker_joined(hello, address, local_now(), actions_);
  carry_out();
  return joined;
}

void RouterProcess::worker_lost(WorkerId worker) {
  dispatcher_.worker_lost(worker, local_now(), actions_);
  carry_out();
}

void RouterProcess::on_frame(WorkerId from, proto::Frame&& frame) {
  dispatcher_.on_frame(from, std::move(frame), local_now(), actions_);
  carry_out();
}

// Hearing may submit, which asks for more.
void RouterProcess::carry_out() {
  router::Actions now = std::exchange(spare_, {});
  std::swap(now, actions_);
  for (router::Send& send : now.sends) outside_.to_worker(*this, send.to, std::move(send.frame));
  for (router::Output& output : now.outputs) hear(output);
  now.clear();
  spare_ = std::move(now);
}

}  // namespace baton::sim
