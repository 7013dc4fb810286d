#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "router/dispatch/worker_pool.h"

namespace baton::router {

// Where a leg of a request is served: prefill and decode, or twice the same worker: a mixed one, or
// a prefill worker that draws the only token.
struct Placement {
  WorkerId prefill;
  WorkerId decode;
  bool mixed() const { return prefill == decode; }
};

struct PlacementQuery {
  std::string_view model;
  uint32_t choices = 1;
  WorkerId prefill;  // if set: pairs with this one only, whatever else it is doing
  WorkerId avoid;    // taken only if nothing else can serve (it failed this request before)
  TimePoint now;
  uint64_t turn = 0;  // equals among the least loaded take turns by it
  // Of pairs whose decode worker is full: its KV will be parked on the prefill worker. No mixed
  // worker then, which has a queue of its own.
  bool park = false;
  uint64_t tokens = 0;  // to park: of the prompt
  // It ends with its first token, or before: nothing is handed over, and nobody need read it.
  bool ends_at_first = false;
};

// The least-loaded pair or mixed worker that may have room; nothing if there is none. To park: the
// pair whose decode worker will have room first.
// A prompt queue of kPrefillUnit tokens weighs as much as a decode worker that is full.
inline constexpr double kPrefillUnit = 2048.0;
std::optional<Placement> place(const WorkerPool& pool, const PlacementQuery& query);

double prefill_load(const Worker& worker);
double decode_load(const Worker& worker);

}  // namespace baton::router
