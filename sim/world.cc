#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "sim/engine.h"

namespace baton::sim {
namespace {

constexpr Duration kActive = seconds(5);     // requests come and things go wrong
constexpr Duration kDeadline = seconds(12);  // of requests, at most
constexpr Duration kQuiet = seconds(10);     // leases, parking and peers have timed out
constexpr Duration kMisfortuneEvery = milliseconds(100);
constexpr Duration kCheckEvery = milliseconds(20);
constexpr Duration kLongestPause = seconds(3);  // leases are of one
constexpr Duration kRecovery = seconds(5);  // until the last pause has ended and all have met again
constexpr uint32_t kCalmRequests = 4;
constexpr Duration kCalmRequestsWithin = seconds(1);
constexpr Duration kSilence = milliseconds(600);

router::RoleOptions fast_roles() {
  return {.window = seconds(4),
          .dwell = milliseconds(500),
          .between = milliseconds(200),
          .unserved_after = milliseconds(200)};
}

}  // namespace

World::World(const RunOptions& options)
    : options_(options),
      random_(options.seed),
      fault_random_(random_.fork()),
      client_random_(random_.fork()),
      role_random_(~options.seed),
      plan_(FaultPlan::draw(random_.fork())),
      calm_from_(begun_ + kActive),
      hub_(kvtransfer::make_loopback_hub(random_.next())),
      network_(timeline_, random_.fork(), plan_.router_delay),
      trace_(options.trace) {
  timeline_.advance(begun_);
  hub_->advance(begun_);
  hub_->set_faults(plan_.network);
}

RunResult World::run() {
  choose_roles();
  make_cluster();
  schedule_requests();
  schedule_misfortune();
  schedule_checks();
  run_until(begun_ + kActive);
  calm_ = true;
  hub_->set_faults({});
  network_.calm();
  calm_roles();
  run_until(begun_ + kActive + kRecovery + kCalmRequestsWithin);
  // Whatever is left has to go by itself.
  const TimePoint end = timeline_.now() + kDeadline + kQuiet;
  while (!over() && !at_rest() && timeline_.now() < end) {
    run_until(timeline_.now() + milliseconds(500));
  }
  check_end();
  for (const auto& router : routers_) result_.tally.add(router->tally());
  const kvtransfer::LoopbackCounts n = hub_->counts();
  const std::pair<Fault, uint64_t> counted[] = {
      {Fault::kDropped, n.dropped},         {Fault::kDoubled, n.doubled},
      {Fault::kDelayed, n.delayed},         {Fault::kReadLate, n.late_gets},
      {Fault::kReadFailed, n.failed_gets},  {Fault::kReadTorn, n.torn_gets},
      {Fault::kCorrupted, n.corrupted_gets}};
  for (const auto& [fault, times] : counted) result_.faults[static_cast<size_t>(fault)] = times;
  return std::move(result_);
}

void World::note(std::string_view what) {
  trace_(timeline_.now() - begun_, "{}", what);
  for (const char c : what) {
    result_.hash = (result_.hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
}

void World::violation(const std::string& what) {
  if (!result_.violation.empty()) return;
  result_.violation = what;
  result_.at = timeline_.now() - begun_;
  note("VIOLATION: " + what);
}

// --- time ----------------------------------------------------------------------------------------

bool World::over() { return !result_.violation.empty(); }

TimePoint World::next_time() {
  TimePoint next = std::min(timeline_.next(), hub_->next_event());
  for (const Site* site : living()) next = std::min(next, site->worker->next_time());
  return std::max(next, timeline_.now());
}

void World::run_until(TimePoint end) {
  while (!over()) {
    const TimePoint next = next_time();
    if (next > end) break;
    timeline_.advance(next);
    hub_->advance(next);
    settle();
    while (!over() && timeline_.run_one()) {
      ++result_.events;
      settle();
    }
  }
  if (over()) return;
  timeline_.advance(end);
  hub_->advance(end);
}

// Everybody does what can be done at this moment.
void World::settle() {
  for (bool more = true; more && !over();) {
    more = false;
    for (Site* site : living()) {
      if (!site->worker->progress()) continue;
      ++result_.events;
      more = true;
      check_worker(*site);
    }
  }
}

std::vector<Site*> World::living() {
  std::vector<Site*> all;
  for (uint32_t i = 0; i < network_.num_sites(); ++i) {
    if (network_.site(i).worker != nullptr) all.push_back(&network_.site(i));
  }
  return all;
}

// --- what there is -------------------------------------------------------------------------------

ProcessClock World::draw_clock() {
  const double drift = plan_.drift * (static_cast<double>(random_.between(0, 2000)) / 1000 - 1);
  if (drift != 0) count(Fault::kSkewed);
  return {timeline_.now(), random_.up_to(seconds(86'400)), drift};
}

WorkerShape World::draw_shape(proto::Role role) {
  WorkerShape s;
  s.role = role;
  if (random_.pick(3) == 0) s.shard_heads.assign(kFaultKvHeads, 1);
  s.block_tokens = 4u << random_.pick(3);  // of 160 to 480 tokens' blocks
  s.num_blocks = random_.between(20, 60) * 8 / s.block_tokens;
  s.chunk_tokens = s.block_tokens * random_.between(1, 4);
  s.max_sequences = random_.between(4, 8);
  s.step_depth = random_.between(1, 2);
  s.layer_time = microseconds(random_.between(50, 3000));
  s.protocol = random_.chance(0.2) ? net::kProtocolMin : net::kProtocolMax;
  s.preempt_every = random_.chance(0.2) ? random_.between(5, 50) : 0;
  return s;
}

void World::make_cluster() {
  for (uint32_t i = 0; i < 4; ++i) {
    prefixes_.emplace_back();
    for (uint32_t t = 0; t < 60; ++t) {
      prefixes_.back().push_back(
          static_cast<TokenId>(1 + client_random_.pick(Engine::kVocabulary - 1)));
    }
  }
  const uint32_t prefill = random_.between(1, 3), decode = random_.between(1, 3);
  const uint32_t mixed = random_.chance(0.3) ? 1 : 0;
  for (uint32_t i = 0; i < prefill + decode + mixed; ++i) {
    const proto::Role role = i < prefill            ? proto::ROLE_PREFILL
                             : i < prefill + decode ? proto::ROLE_DECODE
                                                    : proto::ROLE_MIXED;
    WorkerShape shape = draw_shape(role);
    if (roles_move_) draw_auto(shape);
    start_worker(network_.add_site(), shape);
  }
  for (uint32_t i = random_.chance(0.3) ? 2 : 1; i > 0; --i) start_router();
}

void World::start_worker(Site& site, const WorkerShape& shape) {
  site.worker =
      std::make_shared<Worker>(fault_worker(shape, WorkerId(next_worker_++)),
                               hub_->make_transport("host"), *this, timeline_, draw_clock());
  site.worker->start();
}

void World::start_router() {
  const uint64_t n = next_router_++;
  const auto& router = routers_.emplace_back(
      std::make_shared<Router>(RouterId(1000 + n), n * 1'000'000, *this, timeline_, draw_clock()));
  if (routers_move_them_) router->keep_roles(fast_roles());
  router->start();
  network_.add_router(router);
}

// --- requests ------------------------------------------------------------------------------------

void World::schedule_requests() {
  for (uint32_t i = 0; i < options_.requests; ++i) {
    timeline_.after(milliseconds(300) + client_random_.up_to(kActive - milliseconds(300)),
                    [this, i] { submit(i); });
  }
  // When all is well again, everybody must be served.
  for (uint32_t i = 0; i < kCalmRequests; ++i) {
    timeline_.after(kActive + kRecovery + client_random_.up_to(kCalmRequestsWithin),
                    [this, i] { submit(options_.requests + i); });
  }
}

Router::Request World::draw_request() {
  Router::Request r;
  const auto& prefix = prefixes_[client_random_.pick(prefixes_.size())];
  const uint32_t shared = client_random_.between(0, static_cast<uint32_t>(prefix.size()));
  r.prompt.assign(prefix.begin(), prefix.begin() + shared);
  for (uint32_t own = client_random_.between(shared == 0, 20); own > 0; --own) {
    r.prompt.push_back(static_cast<TokenId>(client_random_.pick(Engine::kVocabulary)));
  }
  r.choices = client_random_.chance(0.2) ? client_random_.between(2, 3) : 1;
  r.max_tokens = client_random_.between(1, client_random_.chance(0.2) ? 60 : 12);
  r.seed = client_random_.next();
  r.deadline = milliseconds(client_random_.between(4000, 12'000));
  if (calm_ || plan_.loses_nothing()) {
    r.deadline = kDeadline;
    r.must_be_answered = !plan_.may_corrupt() || calm_;
  }
  return r;
}

void World::submit(uint32_t index) {
  const auto router = routers_[client_random_.pick(routers_.size())];
  if (!router->knows_model()) {
    if (timeline_.now() > begun_ + kActive + kRecovery)
      return violation("nobody is there to serve");
    timeline_.after(milliseconds(100), [this, index] { submit(index); });
    return;
  }
  Router::Request request = draw_request();
  router->run([this, index, request, weak = std::weak_ptr(router)] {
    const auto r = weak.lock();
    const auto id = r->submit(request);
    note(fmt::format("request {} is {}: {} tokens, {} choices of {}", index,
                     id ? fmt::format("{}", id->value) : "refused", request.prompt.size(),
                     request.choices, request.max_tokens));
    if (!id) return;
    if (client_random_.chance(plan_.cancel)) {
      r->later(client_random_.up_to(seconds(1)), [this, id, p = r.get()] {
        note(fmt::format("request {} is cancelled", id->value));
        p->cancel(*id);
      });
    }
    if (client_random_.chance(plan_.stop_choice)) {
      const auto choice = static_cast<uint32_t>(client_random_.pick(request.choices));
      r->later(client_random_.up_to(seconds(1)),
               [id, choice, p = r.get()] { p->stop_choice(*id, choice); });
    }
  });
}

// --- misfortune ----------------------------------------------------------------------------------

void World::schedule_misfortune() {
  timeline_.after(kMisfortuneEvery, [this] {
    if (calm_) return;
    misfortune();
    schedule_misfortune();
  });
}

void World::schedule_checks() {
  timeline_.after(kCheckEvery, [this] {
    for (Site* site : living()) check_silent_blocks(*site);
    schedule_checks();
  });
}

void World::misfortune() {
  if (roles_move_ && !routers_move_them_) flip_some_role();
  if (fault_random_.chance(plan_.kill)) kill_worker();
  if (fault_random_.chance(plan_.pause)) pause_process();
  if (fault_random_.chance(plan_.cut)) cut_two();
  if (fault_random_.chance(plan_.damage)) damage_cache();
  if (fault_random_.chance(plan_.kill_router)) kill_router();
  if (fault_random_.chance(plan_.break_link)) {
    count(Fault::kLinkBroken);
    note("a router's link breaks");
    network_.break_some_link(kSilence);
  }
}

void World::kill_worker() {
  const auto sites = living();
  if (sites.empty()) return;
  Site& site = *sites[fault_random_.pick(sites.size())];
  count(Fault::kKilled);
  note(site.worker->name() + " is killed");
  const WorkerSetup setup = site.worker->setup();
  const kvtransfer::Endpoint endpoint = site.worker->endpoint();
  dead_mismatches_ += site.worker->core().driver().sink().stats().digest_mismatches;
  hub_->kill(endpoint, fault_random_.chance(0.5));
  silent_.erase(site.worker->id());
  network_.worker_died(site);
  timeline_.after(fault_random_.up_to(seconds(1)),
                  [this, &site, setup, endpoint] { restart(site, setup, endpoint); });
}

void World::restart(Site& site, WorkerSetup setup, const kvtransfer::Endpoint& former) {
  setup.core.handoff.worker = WorkerId(next_worker_++);
  if (plan_.reuse_address) count(Fault::kRestarted);
  site.worker = std::make_shared<Worker>(
      setup, plan_.reuse_address ? hub_->make_transport_at(former) : hub_->make_transport("host"),
      *this, timeline_, draw_clock());
  site.worker->start();
  note(site.worker->name() + " starts");
}

void World::pause_process() {
  const auto sites = living();
  const uint64_t who = fault_random_.pick(sites.size() + 1);
  Process& process = who < sites.size() ? static_cast<Process&>(*sites[who]->worker)
                                        : *routers_[fault_random_.pick(routers_.size())];
  const Duration pause = fault_random_.up_to(kLongestPause);
  count(Fault::kPaused);
  note(fmt::format("{} sleeps for {:.3f} s", process.name(), to_seconds(pause)));
  process.pause(pause);
  if (pause > kSilence) network_.process_sleeps(process, kSilence);
}

void World::cut_two() {
  const auto sites = living();
  if (sites.size() < 2) return;
  const auto a = sites[fault_random_.pick(sites.size())]->worker;
  const auto b = sites[fault_random_.pick(sites.size())]->worker;
  if (a == b) return;
  count(Fault::kCut);
  note(fmt::format("{} and {} are cut off from each other", a->name(), b->name()));
  hub_->cut(a->endpoint(), b->endpoint(), true);
  const Duration how_long = fault_random_.up_to(seconds(2));
  if (how_long > kSilence) network_.break_pairs(*a, *b, kSilence);
  timeline_.after(how_long, [this, one = a->endpoint(), other = b->endpoint()] {
    hub_->cut(one, other, false);
  });
}

// Every read of it goes wrong for a while: reading again does not help, computing anew must.
void World::damage_cache() {
  const auto sites = living();
  if (sites.empty()) return;
  const Worker& worker = *sites[fault_random_.pick(sites.size())]->worker;
  const kvtransfer::Endpoint where = worker.endpoint();
  const uint64_t offset = fault_random_.pick(where.region.bytes);
  count(Fault::kDamaged);
  note(fmt::format("readers see another byte at {} of {}", offset, worker.name()));
  hub_->damage(where, offset, true);
  timeline_.after(fault_random_.up_to(seconds(2)),
                  [this, where, offset] { hub_->damage(where, offset, false); });
}

void World::kill_router() {
  const auto router = routers_[fault_random_.pick(routers_.size())];
  count(Fault::kRouterKilled);
  note(router->name() + " is killed");
  router->died();
  result_.tally.add(router->tally());
  network_.remove_router(*router);
  std::erase(routers_, router);
  start_router();
}

// --- messages ------------------------------------------------------------------------------------

void World::to_router(Worker& from, RouterId router, const proto::Frame& frame) {
  if (trace_.on())
    note(fmt::format("{} -> router {}: {}", from.name(), router.value, frame.ShortDebugString()));
  network_.to_router(from, router, frame);
}

void World::to_all_routers(Worker& from, const proto::Frame& frame) {
  network_.to_all_routers(from, frame);
}

void World::to_worker(RouterProcess& from, WorkerId to, proto::Frame&& frame) {
  if (trace_.on())
    note(fmt::format("{} -> worker {}: {}", from.name(), to.value, frame.ShortDebugString()));
  result_.flips += frame.has_set_role();
  network_.to_worker(from, to, std::move(frame));
}

RunResult run_world(const RunOptions& options) { return World(options).run(); }

}  // namespace baton::sim
