#pragma once

#include <span>

#include "common/base/clock.h"
#include "common/latency/profile.h"
#include "common/latency/step_work.h"

namespace baton::latency {

struct StepObservation {
  StepWork work;
  Duration took{};
};

// The costs that explain these steps best, without any prior: what a profile is made of. Robust as
// StepModel is; the ridge is that of a few powers of two that leaves the least error. Needs steps
// of each kind and many sizes, else what cannot be told apart is shared out. Order does not matter
// much; some milliseconds for a thousand steps. Without a usable step all but `fixed` is 0.
StepCosts calibrate(std::span<const StepObservation> steps);

}  // namespace baton::latency
