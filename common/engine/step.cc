#include "common/engine/step.h"

namespace baton::engine {

uint32_t StepBatch::num_rows() const {
  uint32_t rows = 0;
  for (const StepSequence& s : sequences) rows += s.num_rows;
  return rows;
}

}  // namespace baton::engine
