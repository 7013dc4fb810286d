#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/clock.h"
#include "common/latency/error_window.h"
#include "common/latency/profile.h"
#include "common/latency/robust_fit.h"

namespace baton::latency {

// What else is on a link when a transfer begins.
struct LinkLoad {
  uint32_t transfers = 0;
  size_t bytes = 0;  // that they have left, together
};

// How long `bytes` take on a link that shares its rate equally among what is on it (processor
// sharing, as TCP and RDMA flows over one NIC roughly do): until ours are through, each other one
// has moved as many bytes as we have, or all that it had left. `load.bytes` is taken to be spread
// evenly over load.transfers; what begins later is not foreseen. Never negative; at most a day.
Duration transfer_time(const LinkCosts& costs, size_t bytes, const LinkLoad& load = {});

// One link, learnt from what its transfers took, in the manner of StepModel. A value; one thread.
class LinkModel {
 public:
  explicit LinkModel(const LinkCosts& prior, const FitOptions& options = {});

  Duration predict(size_t bytes, const LinkLoad& load = {}) const {
    return transfer_time(costs_, bytes, load);
  }
  // `load`: as it was when the transfer began.
  void observe(size_t bytes, const LinkLoad& load, Duration took);

  const LinkCosts& costs() const { return costs_; }
  const ErrorWindow& error() const { return error_; }

 private:
  LinkCosts prior_, costs_;
  RobustFit<2> fit_;
  Scatter scatter_;
  ErrorWindow error_;
};

}  // namespace baton::latency
