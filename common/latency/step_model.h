#pragma once

#include <array>

#include "common/base/clock.h"
#include "common/latency/error_window.h"
#include "common/latency/profile.h"
#include "common/latency/robust_fit.h"
#include "common/latency/step_work.h"

namespace baton::latency {

// How long steps take by these costs (the formula is at StepCosts). Never negative; at most a day.
Duration step_time(const StepCosts& costs, const StepWork& work);
// A prompt of which `cached` tokens are there and `tokens` are computed, alone, in steps of `chunk`
// (0: one step): the sum of its steps, in closed form.
Duration prompt_time(const StepCosts& costs, uint64_t tokens, uint64_t cached, uint64_t chunk);

// One worker's steps: what they will take, learnt from what they took. Without any observation it
// says what the prior says; from then on it follows (robust_fit.h says how): a change of the
// worker's speed is learnt, to within 5 % for 95 % of steps, in 256 steps of each kind.
//
// A value without clock or allocation; used by one thread. predict() takes about 10 ns, observe()
// about 300 ns.
class StepModel {
 public:
  explicit StepModel(const StepCosts& prior, const FitOptions& options = {});

  Duration predict(const StepWork& work) const { return step_time(costs_, work); }
  Duration predict_prompt(uint64_t tokens, uint64_t cached, uint64_t chunk) const {
    return prompt_time(costs_, tokens, cached, chunk);
  }

  // What a step took, without waiting behind another. First adds to error() by how much predict()
  // would have been off. A step without rows, or that took no time, teaches nothing.
  void observe(const StepWork& work, Duration took);

  const StepCosts& costs() const { return costs_; }  // as they are believed now
  const ErrorWindow& error(StepKind kind) const { return errors_[static_cast<size_t>(kind)]; }

 private:
  static constexpr size_t kFactors = 6;
  using Fit = RobustFit<kFactors>;

  StepCosts prior_, costs_;
  Fit fit_;
  std::array<Scatter, kNumStepKinds> scatter_;
  std::array<ErrorWindow, kNumStepKinds> errors_;
};

}  // namespace baton::latency
