#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/clock.h"

namespace baton::router {

// Latency targets: TTFT, from the request's receipt to its first token; TPOT, the mean time of each
// further one, (last - first) / (n - 1). Nothing: no target.
struct SloTarget {
  std::optional<Duration> ttft, tpot;
  friend bool operator==(const SloTarget&, const SloTarget&) = default;
};

// What a request may ask for by a class's name.
struct SloClass {
  std::string name;
  SloTarget target;
  // Served with what is left over: never refused for a target, waits and gives way to others, but
  // not for ever.
  bool best_effort = false;
};

// What one request is promised.
struct RequestSlo {
  uint32_t class_index = 0;  // of the router's classes
  SloTarget target;          // the class's, unless the request's headers say otherwise
  TimePoint received;        // what TTFT counts from
  TimePoint due;             // order in queues: by the class's target, which no header shortens
  bool best_effort = false;
};

// Why a request is not served.
struct Refusal {
  enum class Reason : uint8_t {
    kUnattainable,  // the targets cannot be met with what is running and waiting: later, perhaps
    kImpossible,    // nor on an idle cluster
  };
  Reason reason = Reason::kUnattainable;
  std::string message;     // one sentence: which target, and by how much it would be missed
  Duration retry_after{};  // kUnattainable: when it may be met, jittered
};

}  // namespace baton::router
