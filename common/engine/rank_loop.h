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

// Where the steps come from that a rank is told.
enum class NextStep { kStep, kNotYet, kEnd };
// The next one into the batch. `wait`: blocks until there is one, or no step comes any more. Else
// it gives the device a moment, some tens of microseconds, where there is none yet.
using TakeStep = std::function<result<NextStep>(StepBatch& batch, bool wait)>;

// What a rank that does not plan does all its life: runs each step that `take` brings, in step with
// the others, and drops the results, which the planning rank has as well. Where the device runs
// behind the host, a step is enqueued as soon as it is told, as the planning rank does, whose own
// may wait for it. Until the end of steps. An error: `take`'s, or of the ranks.
status follow_steps(StepRunner& runner, const collective::Collective& ranks, const TakeStep& take);

}  // namespace baton::engine
