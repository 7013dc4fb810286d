#include "worker/step_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/engine/batch_work.h"

namespace baton::worker {

void StepRecorder::on_done(const engine::StepBatch& batch, TimePoint) {
  const latency::StepWork w = engine::work_of(batch);
  std::array<char, 160> line;
  const auto out =
      fmt::format_to_n(line.data(), line.size(), "{},{},{},{},{},{:.9f}", w.rows, w.decode_rows,
                       w.context, w.attended, w.outputs, to_seconds(batch.duration));
  file_.add({line.data(), std::min(out.size, line.size())});
}

}  // namespace baton::worker
