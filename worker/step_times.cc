#include "worker/step_times.h"

#include "common/engine/batch_work.h"

namespace baton::worker {

using latency::StepKind;

void StepTimes::on_done(const engine::StepBatch& batch, TimePoint) {
  ++steps_;
  model_.observe(engine::work_of(batch), batch.duration);
}

void StepTimes::update_gauges(Metrics& metrics) const {
  tell_actual_ratio(metrics, "prefill_step", model_.error(StepKind::kPrefill));
  tell_actual_ratio(metrics, "decode_step", model_.error(StepKind::kDecode));
  tell_actual_ratio(metrics, "mixed_step", model_.error(StepKind::kMixed));
}

void tell_actual_ratio(Metrics& metrics, const char* what, const latency::ErrorWindow& error) {
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
}

}  // namespace baton::worker
