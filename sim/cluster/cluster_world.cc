#include "sim/cluster/cluster_world.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/proto/role_name.h"
#include "sim/cluster/cluster_worker.h"
#include "sim/cluster/draw.h"
#include "sim/timeline.h"

namespace baton::sim {
namespace {

// Workers and routers meet and pair before the first request may come.
constexpr Duration kMeeting = seconds(1);

latency::StepCosts scaled(latency::StepCosts c, double by) {
  for (double* cost :
       {&c.fixed, &c.row, &c.row_beyond, &c.context_token, &c.attended_pair, &c.output}) {
    *cost *= by;
  }
  return c;
}

}  // namespace

ClusterWorld::ClusterWorld(const ClusterSpec& spec, const Traffic& traffic,
                           const ClusterRunOptions& options)
    : spec_(spec),
      traffic_(traffic),
      options_(options),
      latency_(from_seconds(spec.message_latency)),
      fabric_(timeline_, latency_, bytes_scale(spec.groups.front())),
      random_(options.seed),
      phases_(~options.seed) {
  timeline_.advance(begun_ - kMeeting);
  if (spec_.spine_bytes_per_second > 0) {
    fabric_.set_spine(fabric_.add_link(spec_.spine_bytes_per_second));
  }
  make_seats();
  result_.outcomes.resize(traffic_.size());
  for (uint32_t r = 1; r <= spec_.routers; ++r) {
    const Frontend::Config config{.id = RouterId(r),
                                  .first_request = RequestId(uint64_t{r} << 48),
                                  .limits = options_.limits,
                                  .placement = options_.placement,
                                  .promise = options_.promise,
                                  .known_lengths = options_.known_lengths,
                                  .deadline = options_.deadline,
                                  .begun = begun_};
    routers_.push_back(
        std::make_shared<Frontend>(config, traffic_, result_.outcomes, *this, timeline_));
    if (spec_.moves_roles()) routers_.back()->keep_roles(spec_.roles);
    routers_.back()->start();
  }
  for (Seat& seat : seats_) start_worker(seat);
}

ClusterWorld::~ClusterWorld() {
  for (Seat& seat : seats_) seat.worker.reset();  // before the fabric
}

void ClusterWorld::make_seats() {
  uint32_t of_role[proto::Role_ARRAYSIZE] = {};  // auto ones are of none
  for (const WorkerGroup& group : spec_.groups) {
    NodeLinks links;
    for (uint32_t i = 0; i < group.count; ++i) {
      if (i % group.workers_per_nic == 0) {
        links.out = fabric_.add_link(group.nic_bytes_per_second);
        links.in = fabric_.add_link(group.nic_bytes_per_second);
        links.read_latency = from_seconds(group.read_latency);
      }
      Seat& seat = seats_.emplace_back();
      seat.group = &group;
      seat.links = links;
      const std::string_view role = group.auto_role ? "auto" : proto::role_name(group.role);
      uint32_t& n = of_role[group.auto_role ? proto::ROLE_UNSPECIFIED : group.role];
      seat.name = fmt::format("{}-{}", role, n++);
    }
  }
}

void ClusterWorld::start_worker(Seat& seat) {
  by_id_.push_back(&seat);
  const WorkerId id(by_id_.size());
  WorkerSetup setup = cluster_worker(
      *seat.group, id, seat.name,
      options_.times == nullptr ? nullptr : &options_.times->of(seat.name),
      [this](uint64_t seed) { return output_length(seed); }, options_.load_every);
  setup.num_routers = spec_.routers;
  setup.profile->step = scaled(setup.profile->step, options_.believed);
  seat.worker = std::make_shared<Worker>(
      setup, fabric_.make_transport(seat.links, [this, &seat] { mark(seat); }), *this, timeline_,
      ProcessClock());
  // Processes start when they do: their ticks do not fall together.
  seat.worker->start(phases_.up_to(options_.load_every));
  mark(seat);
  proto::Frame hello;
  *hello.mutable_worker_hello() = seat.worker->hello(seat.name);
  to_all_routers(*seat.worker, hello);
  proto::Frame load;
  *load.mutable_load() = seat.worker->load();
  to_all_routers(*seat.worker, load);
  schedule_failure(seat);
}

// Where a request asks for no more than it gets, that ends it: nobody learns that it ended itself.
uint32_t ClusterWorld::output_length(uint64_t request) const {
  return options_.known_lengths ? UINT32_MAX : traffic_.output_tokens(request);
}

// --- failures ------------------------------------------------------------------------------------

void ClusterWorld::schedule_failure(Seat& seat) {
  if (!spec_.failures) return;
  const double after = exponential(random_) * spec_.failures->mean_seconds_between;
  timeline_.after(kMeeting + from_seconds(after), [this, &seat] { worker_died(seat); });
}

// Its connections break: everybody hears of it after a message's time.
void ClusterWorld::worker_died(Seat& seat) {
  ++result_.failures;
  const WorkerId id = seat.worker->id();
  by_id_[id.value - 1] = nullptr;
  seat.worker.reset();
  timeline_.after(latency_, [this, id] {
    for (const auto& router : routers_) router->worker_lost(id);
    for (Seat& other : seats_) {
      if (other.worker != nullptr) other.worker->core().remove_peer(id, timeline_.now());
    }
  });
  timeline_.after(from_seconds(spec_.failures->restart_seconds),
                  [this, &seat] { start_worker(seat); });
}

ClusterWorld::Seat* ClusterWorld::seat_of(WorkerId id) {
  return id.value == 0 || id.value > by_id_.size() ? nullptr : by_id_[id.value - 1];
}

std::string ClusterWorld::name_of(WorkerId id) {
  const Seat* seat = seat_of(id);
  return seat == nullptr ? "none" : seat->name;
}

// --- time ----------------------------------------------------------------------------------------

ClusterResult ClusterWorld::run() {
  schedule_arrival(0);
  if (options_.moments_every > Duration::zero()) {
    timeline_.at(begun_ + options_.moments_every, [this] { take_moment(); });
  }
  settle();
  while (!over()) {
    timeline_.advance(timeline_.next());
    timeline_.run_one();
    ++result_.events;
    settle();
  }
  result_.simulated = timeline_.now() - begun_;
  result_.reads = fabric_.reads();
  result_.read_bytes = fabric_.read_bytes();
  for (const auto& router : routers_) {
    result_.tokens += router->tokens();
    result_.retries += router->retries();
    result_.preemptions += router->preemptions();
  }
  return std::move(result_);
}

bool ClusterWorld::over() const {
  if (enough_) return true;
  if (next_request_ < traffic_.size()) return false;
  return std::ranges::all_of(routers_, [](const auto& r) { return r->num_open() == 0; });
}

void ClusterWorld::schedule_arrival(uint64_t request) {
  timeline_.at(begun_ + traffic_.at(request), [this, request] {
    next_request_ = request + 1;
    if (next_request_ < traffic_.size()) schedule_arrival(next_request_);
    ++came_;
    Frontend& router = *routers_[request % routers_.size()];
    const bool away = !options_.turned_away.empty() && options_.turned_away[request];
    away ? router.turn_away(request) : router.submit(request);
  });
}

void ClusterWorld::take_moment() {
  Moment m{.at = timeline_.now() - begun_, .came = came_, .refused = refused_};
  for (const auto& router : routers_) {
    m.prompts += router->num_awaited();
    m.sequences += router->num_open() - router->num_awaited();
  }
  came_ = refused_ = 0;
  result_.moments.push_back(m);
  if (next_request_ >= traffic_.size()) return;
  timeline_.after(options_.moments_every, [this] { take_moment(); });
}

std::vector<RouterId> ClusterWorld::routers_of(const Worker&) {
  std::vector<RouterId> ids;
  for (const auto& router : routers_) ids.push_back(router->id());
  return ids;
}

void ClusterWorld::mark(Seat& seat) {
  if (std::exchange(seat.dirty, true)) return;
  dirty_.push_back(&seat);
}

void ClusterWorld::woken(Worker& worker) {
  if (Seat* seat = seat_of(worker.id())) mark(*seat);
}

// Everybody who may have something to do at this moment does it.
void ClusterWorld::settle() {
  for (size_t i = 0; i < dirty_.size(); ++i) {  // grows meanwhile
    Seat& seat = *dirty_[i];
    seat.dirty = false;
    if (seat.worker == nullptr) continue;
    while (seat.worker->progress()) {
    }
    seat.dirty = false;
    set_alarm(seat);
  }
  dirty_.clear();
}

void ClusterWorld::set_alarm(Seat& seat) {
  const TimePoint next = seat.worker->next_time();
  if (next == TimePoint::max() || (seat.alarm <= next && seat.alarm > timeline_.now())) return;
  seat.alarm = next;
  timeline_.at(next, [this, &seat] { mark(seat); });
}

// --- messages ------------------------------------------------------------------------------------

void ClusterWorld::to_router(Worker& from, RouterId router, const proto::Frame& frame) {
  post(from.id(), router, frame);
}

void ClusterWorld::to_all_routers(Worker& from, const proto::Frame& frame) {
  for (const auto& router : routers_) post(from.id(), router->id(), frame);
}

// A copy, in the memory of an earlier one of its kind: nearly all are of these two.
ClusterWorld::Mail ClusterWorld::copy_of(const proto::Frame& frame) {
  std::vector<Mail>* const spare = spare_of(frame);
  if (spare == nullptr || spare->empty()) return std::make_unique<proto::Frame>(frame);
  Mail copy = std::move(spare->back());
  spare->pop_back();
  if (frame.has_tokens()) {
    *copy->mutable_tokens() = frame.tokens();
  } else {
    *copy->mutable_load() = frame.load();
  }
  return copy;
}

std::vector<ClusterWorld::Mail>* ClusterWorld::spare_of(const proto::Frame& frame) {
  return frame.has_tokens() ? &spare_tokens_ : frame.has_load() ? &spare_loads_ : nullptr;
}

void ClusterWorld::post(WorkerId from, RouterId to, const proto::Frame& frame) {
  timeline_.after(latency_, [this, from, to, mail = copy_of(frame)]() mutable {
    if (seat_of(from) == nullptr) return;  // it died: the connection broke
    Frontend& router = *routers_[to.value - 1];
    if (mail->has_worker_hello()) {
      (void)router.worker_joined(mail->worker_hello(), mail->worker_hello().pair_address());
      return;
    }
    router.on_frame(from, std::move(*mail));
    if (auto* const spare = spare_of(*mail)) spare->push_back(std::move(mail));
  });
}

void ClusterWorld::to_worker(RouterProcess& from, WorkerId to, proto::Frame&& frame) {
  if (options_.decisions != nullptr) {
    log_decision(frame, name_of(to));
  }
  if (frame.has_set_role()) {
    result_.flips.push_back({timeline_.now() - begun_, name_of(to), frame.set_role().role()});
  }
  auto mail = std::make_unique<proto::Frame>(std::move(frame));
  timeline_.after(latency_, [this, router = from.id(), to, mail = std::move(mail)] {
    Seat* seat = seat_of(to);
    if (seat == nullptr) return;
    if (mail->has_peers()) return pair(*seat->worker, mail->peers());
    seat->worker->core().on_frame(router, *mail, timeline_.now());
  });
}

// What is named is dialled at once; that both ends then know each other takes messages as ever.
void ClusterWorld::pair(Worker& decode, const proto::Peers& peers) {
  for (const auto& peer : peers.prefill()) {
    Seat* seat = seat_of(WorkerId(peer.worker()));
    if (seat == nullptr) continue;
    (void)seat->worker->core().add_peer(decode.core().hello(), timeline_.now());
    (void)decode.core().add_peer(seat->worker->core().hello(), timeline_.now());
  }
}

void ClusterWorld::gave_up(Worker&, WorkerId) {}  // nobody goes silent here

// --- decisions -----------------------------------------------------------------------------------

// Where a leg of a request goes; its seed says which request it is.
void ClusterWorld::log_decision(const proto::Frame& frame, const std::string& to) {
  const auto line = [&](const proto::RequestSpec& spec, const std::string& what) {
    fmt::print(options_.decisions, "{:.9f} {} {}\n", to_seconds(timeline_.now() - begun_),
               spec.sampling().seed(), what);
  };
  if (frame.has_reserve()) {
    line(frame.reserve().spec(),
         fmt::format("{} {} {}", frame.reserve().may_wait() ? "park" : "pair",
                     name_of(WorkerId(frame.reserve().source())), to));
  } else if (frame.has_submit() && frame.submit().sink() == 0) {
    line(frame.submit().spec(), fmt::format("whole {}", to));
  } else if (frame.has_set_role()) {
    fmt::print(options_.decisions, "{:.9f} role {} {}\n", to_seconds(timeline_.now() - begun_), to,
               proto::role_name(frame.set_role().role()));
  }
}

void ClusterWorld::request_ended(const Frontend&, uint64_t request, const Outcome& outcome,
                                 const std::string& why) {
  refused_ += outcome.end == Outcome::End::kRefused;
  if (options_.ended != nullptr) options_.ended->fetch_add(1, std::memory_order_relaxed);
  if (options_.enough && options_.enough(request, outcome)) enough_ = true;
  if (options_.decisions == nullptr || outcome.end == Outcome::End::kAnswered) return;
  fmt::print(options_.decisions, "{:.9f} {} {} {}\n", to_seconds(timeline_.now() - begun_), request,
             outcome.end == Outcome::End::kRefused ? "refused" : "failed", why);
}

ClusterResult run_cluster(const ClusterSpec& spec, const Traffic& traffic,
                          const ClusterRunOptions& options) {
  return ClusterWorld(spec, traffic, options).run();
}

}  // namespace baton::sim
