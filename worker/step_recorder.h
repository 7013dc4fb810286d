#pragma once

#include "common/base/record_file.h"
#include "common/serving/step_client.h"

namespace baton::worker {

// What each step had to do and took, as `baton sim --step-times` reads it. Control thread.
class StepRecorder final : public serving::StepClient {
 public:
  static constexpr std::string_view kHeader = "rows,decode_rows,context,attended,outputs,seconds";

  explicit StepRecorder(RecordFile file) : file_(std::move(file)) {}

  void plan(engine::StepBudget&, engine::StepBatch&, TimePoint) override {}  // has no work
  void on_layer(const engine::StepBatch&, uint32_t, TimePoint) override {}
  void on_done(const engine::StepBatch& batch, TimePoint now) override;  // allocates nothing

 private:
  RecordFile file_;
};

}  // namespace baton::worker
