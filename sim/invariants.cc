#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "sim/world.h"

// What must hold in every world, whatever goes wrong there.
namespace baton::sim {
namespace {

constexpr Duration kDamageEnds = seconds(3);  // after the last of it was done

}  // namespace

void World::check_worker(Site& site) {
  const Worker& worker = *site.worker;
  const kvcache::BlockPool& pool = worker.core().pool();
  if (pool.counts().total() != pool.size() || !pool.consistent()) {
    violation(worker.name() + ": a block is in no state, or in two");
  }
  check_bounds(worker);
  check_mismatches(worker);
}

void World::check_bounds(const Worker& worker) {
  const auto& source = worker.core().driver().source();
  const auto& sink = worker.core().driver().sink();
  const uint32_t blocks = worker.num_blocks();
  // One prompt alone may be larger than that.
  if (source.waiting_blocks() > blocks / 2 && source.num_waiting() > 1) {
    violation(fmt::format("{}: {} of {} blocks wait for a decode worker", worker.name(),
                          source.waiting_blocks(), blocks));
  }
  if (sink.held_blocks() > blocks) {
    violation(
        fmt::format("{}: {} of {} blocks are awaited", worker.name(), sink.held_blocks(), blocks));
  }
}

// A block that is free or cached is written to by nobody.
void World::check_silent_blocks(Site& site) {
  const Worker& worker = *site.worker;
  const kvcache::BlockPool& pool = worker.core().pool();
  std::vector<Silent>& all = silent_[worker.id()];
  all.resize(pool.size());
  for (uint32_t b = 0; b < pool.size(); ++b) {
    const BlockId block{b};
    Silent now = {pool.state(block), pool.generation(block), 0};
    if (now.state == kvcache::BlockState::kFree || now.state == kvcache::BlockState::kCached) {
      const auto bytes = worker.block(block);
      now.hash = XXH3_64bits(bytes.data(), bytes.size());
    }
    const Silent before = std::exchange(all[b], now);
    const bool stayed = before.state == now.state && before.generation == now.generation;
    if (stayed && now.hash != 0 && before.hash != now.hash) {
      violation(fmt::format("{}: block {} is nobody's, and was written to", worker.name(), b));
    }
  }
}

// Digests do not fail by themselves. A source that gives a hand-off up, or to another reader,
// reuses its blocks in the end, and the digest tells whoever still reads; one that holds it has the
// right bytes, unless one was changed.
void World::check_mismatches(const Worker& worker) {
  const auto& sink = worker.core().driver().sink().stats();
  uint64_t& before = mismatches_[worker.id()];
  if (std::exchange(before, sink.digest_mismatches) == sink.digest_mismatches) return;
  if (plan_.may_corrupt() && timeline_.now() < calm_from_ + kDamageEnds) return;
  for (Site* site : living()) {
    if (site->worker->id() != sink.last_mismatch_source) continue;
    if (!site->worker->core().driver().source().holds(sink.last_mismatch)) continue;
    violation(fmt::format("{}: what it read of {} of {} does not match, and nothing was changed",
                          worker.name(), kvtransfer::to_string(sink.last_mismatch),
                          site->worker->name()));
  }
}

void World::count_reads() {
  result_.mismatches = dead_mismatches_;
  for (Site* site : living()) {
    const auto& sink = site->worker->core().driver().sink().stats();
    result_.mismatches += sink.digest_mismatches;
    result_.rereads += sink.rereads;
  }
}

void World::check_peers(const Worker& worker) {
  const auto sites = living();
  for (const WorkerId peer : worker.core().driver().peers()) {
    const bool lives =
        std::ranges::any_of(sites, [peer](const Site* site) { return site->worker->id() == peer; });
    if (!lives) {
      violation(
          fmt::format("{} still believes in worker {}, which is dead", worker.name(), peer.value));
    }
  }
}

// What a worker holds that it should not when nobody asks for anything; empty: nothing.
std::string World::held_by(const Worker& worker) {
  const worker::WorkerCore& core = worker.core();
  const kvcache::BlockCounts blocks = core.pool().counts();
  const auto& source = core.driver().source();
  const auto& sink = core.driver().sink();
  const uint32_t slots = core.slots().size() - core.slots().available();
  const uint64_t handoffs = source.num_handoffs() + sink.num_handoffs();
  const uint64_t rest = source.num_early_credits() + source.parked_blocks() +
                        source.waiting_blocks() + sink.held_blocks() + sink.reads_in_flight();
  if (core.idle() && blocks.active + blocks.quarantined + slots + handoffs + rest == 0) return {};
  return fmt::format(
      "{} still holds {} blocks, {} in quarantine, {} slots, {} hand-offs, {} early credits, {} "
      "reads, {}",
      worker.name(), blocks.active, blocks.quarantined, slots, handoffs, source.num_early_credits(),
      sink.reads_in_flight(), core.idle() ? "and no request" : "and requests");
}

bool World::at_rest() {
  const auto sites = living();
  return std::ranges::all_of(routers_, [](const auto& r) { return r->num_open() == 0; }) &&
         std::ranges::all_of(sites,
                             [](const Site* site) { return held_by(*site->worker).empty(); });
}

void World::check_end() {
  count_reads();
  if (over()) return;
  for (const auto& router : routers_) router->check_nothing_is_left();
  for (const Site* site : living()) {
    check_peers(*site->worker);
    const std::string held = held_by(*site->worker);
    if (!held.empty()) violation(held);
  }
}

}  // namespace baton::sim
