#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/base/clock.h"
#include "kvtransfer/loopback_transport.h"
#include "sim/random.h"

namespace baton::sim {

enum class Fault : uint8_t {
  kDropped,     // a message between workers
  kDoubled,     // the same
  kDelayed,     // the same: they overtake each other
  kReadLate,    // a read of a peer's memory, of what is there by then
  kReadFailed,  //
  kReadTorn,    // only a part of it has come, though it says that it is done
  kCorrupted,   // a byte of what was read is another
  kDamaged,     // a byte of a worker's memory is, for whoever reads it, for a while
  kKilled,      // a worker
  kRestarted,   // a worker, where the old one was: its address is used again
  kPaused,      // a process, for longer or shorter than a lease
  kCut,         // two workers cannot reach each other for a while
  kLinkBroken,  // a router's connection to a worker
  kRouterKilled,
  kSkewed,  // a process's clock runs at another pace
};
inline constexpr size_t kNumFaults = 15;
std::string_view name(Fault fault);

using FaultCounts = std::array<uint64_t, kNumFaults>;

// What goes wrong in one run, and how often. Some runs are nearly or wholly spared, so that what
// only misfortune may cause can be told from what is a bug.
struct FaultPlan {
  kvtransfer::LoopbackFaults network;
  Duration router_delay{};  // of a message between router and worker, at most
  // Each tenth of a second:
  double damage = 0, kill = 0, pause = 0, cut = 0, break_link = 0, kill_router = 0;
  double cancel = 0;       // of requests, by the client
  double stop_choice = 0;  // of requests, one choice by the router
  double drift = 0;        // of a process's clock, at most
  bool reuse_address = false;

  bool may_corrupt() const { return network.corrupt_get + network.torn_get + damage > 0; }
  bool loses_nothing() const {  // nobody dies, sleeps or is cut off; what is lost is said again
    return network.fail_get + kill + pause + cut + break_link + kill_router == 0;
  }

  static FaultPlan draw(Random random);
};

}  // namespace baton::sim
