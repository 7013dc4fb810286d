#pragma once

#include "common/base/metrics.h"
#include "common/latency/step_model.h"
#include "common/serving/step_client.h"

namespace baton::worker {

// What this worker's steps take: the latency model learns from each, and how far it was off is
// exported. Control thread.
class StepTimes final : public serving::StepClient {
 public:
  explicit StepTimes(const latency::StepModel& start) : model_(start) {}

  void plan(engine::StepBudget&, engine::StepBatch&, TimePoint) override {}  // has no work
  void on_layer(const engine::StepBatch&, uint32_t, TimePoint) override {}
  void on_done(const engine::StepBatch& batch, TimePoint now) override;  // allocates nothing

  void update_gauges(Metrics& metrics) const;
  const latency::StepModel& model() const { return model_; }
  // So few steps teach little: its costs are what was guessed before.
  bool guessed() const { return steps_ < 16; }

 private:
  latency::StepModel model_;
  uint64_t steps_ = 0;
};

// The gauge baton_latency_actual_ratio{what}; none while nothing was predicted.
void tell_actual_ratio(Metrics& metrics, const char* what, const latency::ErrorWindow& error);

}  // namespace baton::worker
