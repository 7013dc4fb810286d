#include "worker/step_times.h"

#include "common/engine/batch_work.h"

namespace baton::worker {

using latency::StepKind;

void StepTimes::on_done(const engine::StepBatch& batch, TimePoint) {
  ++steps_;
  model_.observe(engine::work_of(batch), batch.duration);
}

void StepTimes::update_gauges(Metrics& metrics) const {
  const auto tell = [&](const char* what, StepKind kind) {
    const latency::ErrorWindow& error = model_.error(kind);
    if (error.count() == 0) return;
    const auto quantile = [&](const char* label, double q) {
      metrics
          .gauge("baton_latency_actual_ratio",
                 "Time taken over time predicted, by quantile of the last 512.",
                 {{"what", what}, {"quantile", label}})
          .Set(error.ratio_quantile(q));
    };
    quantile("0.05", 0.05);
    quantile("0.5", 0.5);
    quantile("0.95", 0.95);
  };
  tell("prefill_step", StepKind::kPrefill);
  tell("decode_step", StepKind::kDecode);
  tell("mixed_step", StepKind::kMixed);
}

}  // namespace baton::worker
