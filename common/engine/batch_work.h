#pragma once

#include "common/engine/client_mark.h"
#include "common/engine/step.h"
#include "common/latency/step_work.h"

namespace baton::engine {

// What the latency model is asked about a step. Rows of the decode scheduler count as decode rows.
inline latency::StepWork work_of(const StepBatch& batch) {
  latency::StepWork work;
  for (const StepSequence& s : batch.sequences) {
    work += latency::StepWork::prefill(s.num_rows, s.position, 0);
    if (belongs_to(s.client, Owner::kDecode)) work.decode_rows += s.num_rows;
  }
  work.outputs = batch.samples.size();
  return work;
}

}  // namespace baton::engine
