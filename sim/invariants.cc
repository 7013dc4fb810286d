#include <fmt/format.h>
#include <xxhash.h>

#include "sim/world.h"

// What must hold in every world, whatever goes wrong there.
namespace baton::sim {

void World::check_worker(Site& site) {
  const Worker& worker = *site.worker;
  const kvcache::BlockPool& pool = worker.core().pool();
  if (pool.counts().total() != pool.size() || !pool.consistent()) {
    violation(worker.name() + ": a block is in no state, or in two");
  }
  check_bounds(worker);
}

void World::check_bounds(const Worker& worker) {
  const auto& source = worker.core().driver().source();
  const auto& sink = worker.core().driver().sink();
  const uint32_t blocks = worker.shape().num_blocks;
  if (source.parked_blocks() > blocks / 2) {
    violation(fmt::format("{}: {} of {} blocks are parked", worker.name(), source.parked_blocks(),
                          blocks));
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

// Digests do not fail by themselves.
void World::check_mismatches() {
  uint64_t mismatches = dead_mismatches_, rereads = 0;
  for (Site* site : living()) {
    mismatches += site->worker->core().driver().sink().stats().digest_mismatches;
    rereads += site->worker->core().driver().sink().stats().rereads;
  }
  result_.mismatches = mismatches;
  result_.rereads = rereads;
  // A source that has ended a hand-off reuses its blocks under the reader; where nothing is lost
  // and nobody gives up, there is no such end.
  const bool by_nothing =
      !plan_.may_corrupt() && plan_.loses_nothing() && plan_.cancel == 0 && plan_.stop_choice == 0;
  if (by_nothing && mismatches > 0) {
    violation(fmt::format("{} digests do not match, and nothing was changed", mismatches));
  }
}

void World::check_end() {
  check_mismatches();
  if (over()) return;
  router_->check_nothing_is_left();
  for (Site* site : living()) {
    const Worker& worker = *site->worker;
    const worker::WorkerCore& core = worker.core();
    const kvcache::BlockCounts blocks = core.pool().counts();
    const auto& source = core.driver().source();
    const auto& sink = core.driver().sink();
    if (blocks.active + blocks.quarantined > 0 || core.slots().available() != core.slots().size()) {
      violation(fmt::format("{} still holds {} blocks, {} in quarantine, {} slots", worker.name(),
                            blocks.active, blocks.quarantined,
                            core.slots().size() - core.slots().available()));
    }
    if (!core.idle() || source.num_handoffs() + source.num_early_credits() +
                                source.parked_blocks() + sink.num_handoffs() + sink.held_blocks() +
                                sink.reads_in_flight() >
                            0) {
      violation(
          fmt::format("{} still has requests ({}), {} + {} hand-offs, {} early credits, {} reads",
                      worker.name(), core.idle() ? "none" : "some", source.num_handoffs(),
                      sink.num_handoffs(), source.num_early_credits(), sink.reads_in_flight()));
    }
  }
}

}  // namespace baton::sim
