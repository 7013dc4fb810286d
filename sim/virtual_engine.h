#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"
#include "sim/process.h"

namespace baton::sim {

// What runs a worker's steps in virtual time: one after the other, in the order submitted.
class VirtualEngine {
 public:
  struct Callbacks {
    std::function<void(const engine::StepBatch&, uint32_t layer)> on_layer;  // of digested ones
    std::function<void(engine::StepBatch&)> on_done;
    Process& process;  // whose time steps take; while it sleeps, nothing is done
  };
  // The cache that it computes in outlives the engine.
  using Maker =
      std::function<std::unique_ptr<VirtualEngine>(const kvcache::KvCache&, const Callbacks&)>;

  virtual ~VirtualEngine() = default;
  // The batch is the caller's again when on_done has it.
  virtual void submit(engine::StepBatch* batch) = 0;
};

}  // namespace baton::sim
