#pragma once

#include <functional>
#include <memory>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/latency/profile.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

// The link that a PacedTransport stands for.
struct PacedLink {
  latency::LinkCosts costs;
  double scale = 1;  // bytes on the link that a byte of a get stands for; above 0
};

// `inner`, as slow as a link that is not there: for workers whose device is emulated. A get ends
// no earlier than `costs.latency` plus the time in which the link moves its bytes; peers whose gets
// are open share the link equally, and the gets of one peer share what it gets
// (latency::FairLinks). The bytes come when `inner` brings them, which may be long before. Nothing
// is mapped, since what is read directly takes no time; a get that lasts tells no progress.
// Only this reader's link is known: who else reads the same owner takes nothing away.
// kIo where the system gives no descriptor.
result<std::unique_ptr<Transport>> make_paced_transport(
    std::unique_ptr<Transport> inner, const PacedLink& link,
    std::function<TimePoint()> clock = [] { return Clock::now(); });

}  // namespace baton::kvtransfer
