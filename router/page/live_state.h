#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "router/page/live_history.h"
#include "router/page/recent_requests.h"
#include "router/placement/slo_config.h"

// What the live page shows (docs/live_page.md). Plain values; pure.
namespace baton::router {

struct LiveWorker {
  std::string name;     // empty: it never said hello
  std::string address;  // where the router looks for it
  std::string model;
  std::string_view role;   // "prefill", "decode", "mixed", "unknown"
  std::string_view state;  // "ready", "draining", "lost", "connecting", "refused"
  bool auto_role = false;
  uint32_t running = 0, waiting = 0;  // requests, as it last said
  uint32_t sequences = 0;             // that decode there
  uint64_t queued_tokens = 0, context_tokens = 0;
  uint32_t free_blocks = 0, total_blocks = 0;
  uint32_t parked_blocks = 0;  // of prompts that no decode worker has room for yet
};

// All workers of a role, also those that are not shown.
struct LivePool {
  std::string_view role;
  uint32_t workers = 0, ready = 0, running = 0, waiting = 0;
  uint64_t free_blocks = 0, total_blocks = 0;
};

struct LivePair {
  std::string prefill, decode;
  double bytes_per_second = 0;
  uint64_t bytes = 0, hand_overs = 0;
  double exposed_seconds = 0;  // of all of them
};

struct LiveModel {
  std::string name;
  size_t running = 0, waiting = 0;
};

struct LiveState {
  static constexpr size_t kMostWorkers = 256;
  static constexpr size_t kMostPairs = 64;
  static constexpr size_t kMostModels = 32;

  std::string_view version;
  Duration up{};
  // The rest: what is shown of them, and how many there are.
  std::vector<LiveModel> models;
  size_t num_models = 0;
  std::vector<LivePool> pools;
  std::vector<LiveWorker> workers;
  size_t num_workers = 0;
  std::vector<LivePair> pairs;
  size_t num_pairs = 0;
  size_t in_flight = 0, queued = 0;               // requests; parts of them that wait for a worker
  uint64_t prompt_tokens = 0, output_tokens = 0;  // since the start
  std::vector<LiveHistory::Step> steps;           // see LiveHistory
  Duration age{};
  std::vector<std::string> reasons;
};

// Of all workers those to be shown, and in which order: by role and name; where there are too many,
// those in trouble and the fullest come first.
std::vector<LiveWorker> shown_workers(std::vector<LiveWorker> all, size_t most);
std::vector<LivePool> pools_of(const std::vector<LiveWorker>& all);
// The busiest.
std::vector<LivePair> shown_pairs(std::vector<LivePair> all, size_t most);

// The answer of /debug/state. `details`: with ids of requests, tenants and addresses of workers,
// which are not for everybody.
std::string state_json(const LiveState& state, const SloClasses& classes,
                       const std::deque<RecentRequest>& recent, TimePoint now, bool details);

}  // namespace baton::router
