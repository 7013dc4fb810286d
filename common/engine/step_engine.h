#pragma once

#include <cstdint>
#include <optional>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/engine/event_queue.h"
#include "common/engine/step.h"

namespace baton::engine {

// What runs a worker's steps, in the order submitted. Its owner plans the next step while one runs;
// sequences whose last token is not known yet are planned by StepSequence::last_of.
//
// Thread: submit(), poll() and stop() belong to one thread, the owner's; none of submit() and
// poll() blocks.
class StepEngine {
 public:
  virtual ~StepEngine() = default;

  // The caller keeps the batch, and touches it no more until poll() has given its step_done. False,
  // and nothing done, where as many batches as the engine takes are in flight (submitted, their
  // step_done not polled) or the engine has stopped.
  virtual bool submit(StepBatch* batch) = 0;

  // The next event, oldest first; false if there is none now.
  //   layer_done: K, V and digests of this layer may be read (batches with a sequence to digest).
  //   step_done: all results are in the batch.
  //   failed: another rank is lost, and the engine has ended; what was in flight has no results.
  virtual bool poll(EngineEvent& event) = 0;
  // Readable while poll() may give something; for an event loop. The engine owns it.
  virtual int event_fd() const = 0;

  // Waits for the steps that have begun; one that waits behind them is never run. Events stay to be
  // polled.
  virtual void stop() = 0;
  // Why it ended; fine unless poll() gave `failed`. The owner's thread.
  virtual const status& failure() const = 0;

  // From any thread, for liveness: steps done, and for how long the one that runs has been running.
  virtual uint64_t steps_done() const = 0;
  virtual std::optional<Duration> running_for(TimePoint now) const = 0;
};

}  // namespace baton::engine
