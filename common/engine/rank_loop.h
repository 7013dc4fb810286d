#pragma once

#include <functional>

#include "common/base/result.h"
#include "common/engine/step_runner.h"

namespace baton::engine {

// Told of each step by the rank that plans, so that the others run it, too.
class RankSteps {
 public:
  virtual ~RankSteps() = default;
  // On the engine's thread, before the step is run here; may block until the others take it. The
  // error ends the engine.
  virtual status tell(const StepBatch& batch) = 0;
};

// What a rank that does not plan does all its life: runs each step that `next` brings, in step with
// the others, and drops the results, which the planning rank has as well. `next` blocks; false: no
// step comes any more. An error: `next`'s, or of the ranks.
status follow_steps(StepRunner& runner, const collective::Collective& ranks,
                    const std::function<result<bool>(StepBatch&)>& next);

}  // namespace baton::engine
