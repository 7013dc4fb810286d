#include "router/page/live_state.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace baton::router {
namespace {

// Workers of trouble first, then those with the least room.
auto urgency(const LiveWorker& w) {
  const double free = w.total_blocks > 0 ? double(w.free_blocks) / w.total_blocks : 1.0;
  return std::tuple(w.state == "ready", free);
}

auto place(const LiveWorker& w) { return std::tie(w.role, w.name, w.address); }

}  // namespace

std::vector<LiveWorker> shown_workers(std::vector<LiveWorker> all, size_t most) {
  if (all.size() > most) {
    std::ranges::stable_sort(all, {}, [](const LiveWorker& w) { return urgency(w); });
    all.resize(most);
  }
  std::ranges::stable_sort(all, {}, [](const LiveWorker& w) { return place(w); });
  return all;
}

std::vector<LivePool> pools_of(const std::vector<LiveWorker>& all) {
  std::vector<LivePool> pools;
  for (const std::string_view role : {"prefill", "decode", "mixed", "unknown"}) {
    LivePool pool{.role = role};
    for (const LiveWorker& worker : all) {
      if (worker.role != role) continue;
      ++pool.workers;
      pool.ready += worker.state == "ready" ? 1 : 0;
      pool.running += worker.running;
      pool.waiting += worker.waiting;
      pool.free_blocks += worker.free_blocks;
      pool.total_blocks += worker.total_blocks;
    }
    if (pool.workers > 0) pools.push_back(pool);
  }
  return pools;
}

std::vector<LivePair> shown_pairs(std::vector<LivePair> all, size_t most) {
  std::ranges::stable_sort(all, std::ranges::greater{}, [](const LivePair& pair) {
    return std::tuple(pair.bytes_per_second, pair.bytes);
  });
  if (all.size() > most) all.resize(most);
  return all;
}

}  // namespace baton::router
