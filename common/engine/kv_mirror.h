#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"
#include "common/ops/ops.h"

namespace baton::engine {

// The host's side of a cache that lies in a device's own memory, which peers cannot read and reads
// cannot fill: a mirror of it, block for block. What is to be handed off is copied out layer by
// layer as it is computed, and digested on the way; what was received and checked is copied in
// before it is used. Blocks that nobody hands off are never copied, and their mirror means nothing.
// Where peers read the device's memory itself, the mirror is the cache: then nothing is copied, and
// digests alone are taken.
// Used by the engine's thread; allocates nothing after construction.
class KvMirror {
 public:
  // `mirror` has the layout and the blocks of `cache`, which may be as far apart as a shard's are,
  // in host memory that this locks for the device; or it is `cache`. All outlive this.
  // `max_blocks`: that a step touches, `max_steps`: in flight.
  static result<std::unique_ptr<KvMirror>> create(const kvcache::KvCache& cache,
                                                  const kvcache::KvCache& mirror,
                                                  device::Device& device, const ops::Ops& ops,
                                                  uint32_t max_blocks, uint32_t max_steps);

  // Enqueues blocks that arrived in the mirror, to the device; at most as many as there are.
  void bring_in(device::Stream& stream, std::span<const BlockId> blocks);

  // Before a step's pass: which blocks its digested sequences touch, up to their last row. `step`
  // is below max_steps and not in flight.
  void begin(uint32_t step, const StepBatch& batch);
  // Enqueues a copy of the layer, behind all that `stream` has so far but not on it.
  void take_out(uint32_t step, device::Stream& stream, uint32_t layer);
  // Whether the layer's copy has been made; never blocks.
  bool is_taken_out(uint32_t step, uint32_t layer) const {
    return steps_[step].copied[layer]->done();
  }
  // Blocks until the layer's copy has been made; then its digests into the batch, as
  // StepSequence::digests.
  void finish(uint32_t step, uint32_t layer, StepBatch& batch);

 private:
  struct Step {
    std::span<ops::KvCopyBlock> blocks;  // [max_blocks]
    uint32_t num_blocks = 0;
    std::span<uint64_t> digests;                           // [layers * max_blocks]
    std::vector<std::unique_ptr<device::Event>> computed;  // a layer each
    std::vector<std::unique_ptr<device::Event>> copied;
  };

  KvMirror(const kvcache::KvCache& cache, const kvcache::KvCache& mirror, device::Device& device,
           const ops::Ops& ops);
  status allocate(device::Device& device, uint32_t max_blocks, uint32_t max_steps);
  bool is_cache() const { return mirror_.memory().data() == cache_.memory().data(); }

  const kvcache::KvCache cache_, mirror_;
  const ops::Ops& ops_;
  std::unique_ptr<device::Stream> stream_;  // the way out
  device::Buffer locked_;                   // the mirror's memory
  device::Buffer memory_;                   // what the spans are of
  std::vector<Step> steps_;
  std::span<ops::KvCopyBlock> arrived_;  // [blocks of the cache] x kArrivals, a ring
  std::vector<std::unique_ptr<device::Event>> brought_in_;
  uint32_t arrival_ = 0;
  static constexpr uint32_t kArrivals = 3;
};

}  // namespace baton::engine
