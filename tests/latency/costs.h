#pragma once

#include <random>

#include "common/latency/step_model.h"

namespace baton::latency {

// About a Llama-3-8B on a large GPU.
inline StepCosts gpu_costs() {
  return {.fixed = 4.3e-3,
          .row = 2e-6,
          .row_beyond = 20e-6,
          .context_token = 38e-9,
          .attended_pair = 0.8e-9,
          .output = 4e-6,
          .ridge_rows = 190};
}

// Every cost but the ridge times `factor`.
inline StepCosts times(StepCosts c, double factor) {
  c.fixed *= factor;
  c.row *= factor;
  c.row_beyond *= factor;
  c.context_token *= factor;
  c.attended_pair *= factor;
  c.output *= factor;
  return c;
}

// Steps as a worker has them: of prompts, of running sequences, and of both.
class SomeSteps {
 public:
  explicit SomeSteps(uint64_t seed) : random_(seed) {}

  StepWork prefill() { return StepWork::prefill(pick(16, 4096), pick(0, 4096), pick(0, 1)); }
  StepWork decode() {
    const uint64_t n = pick(1, 128);
    return StepWork::decode(n, n * pick(16, 4096));
  }
  StepWork any() {
    switch (pick(0, 2)) {
      case 0:
        return prefill();
      case 1:
        return decode();
      default:
        return prefill() + decode();
    }
  }
  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  // `d` with noise of this share; in `outliers` of cases up to ten times as long.
  Duration noisy(Duration d, double share, double outliers = 0) {
    double factor = std::max(0.1, std::normal_distribution<double>(1, share)(random_));
    std::uniform_real_distribution<double> uniform(0, 1);
    if (uniform(random_) < outliers) factor *= 2 + 8 * uniform(random_);
    return std::chrono::duration_cast<Duration>(d * factor);
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace baton::latency
