#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/engine/kv_mirror.h"
#include "common/engine/sampler_slots.h"
#include "common/engine/step.h"
#include "common/engine/step_outputs.h"
#include "common/kvcache/kv_cache.h"
#include "common/model/model.h"
#include "common/ops/ops.h"

namespace baton::engine {

// Told while a step runs, on the thread that runs it.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  // K and V of the batch's rows in `layer` can be read by others, and the digests of the sequences
  // that want them are in the batch (of ranks, where the batch tells the layer). Only for batches
  // that have such a sequence.
  virtual void on_layer(StepBatch& batch, uint32_t layer) = 0;
};

// The memory a worker's KV lies in.
struct KvMemory {
  kvcache::KvCache device;  // what the model reads and writes
  // What peers read and reads fill: the same memory where the host can address the device's, or
  // where peers can, too; else a mirror of it.
  kvcache::KvCache host;
  bool is_read_on_device = false;  // the latter: digests are taken there
};

// Runs one step after the other: brings blocks in, copies blocks, opens slots, puts the rows
// together, runs the model, scores and samples. Where the device runs behind the host, a second
// step may be enqueued while the first runs: its rows take their tokens on the device. Used by one
// thread. A step allocates nothing once vectors in the batch have their size, except where a slot
// is opened.
class StepRunner final : private model::LayerObserver {
 public:
  static constexpr uint32_t kMaxSteps = 2;  // in flight

  // Everything referred to must outlive the runner. kInvalidArgument where the model was loaded for
  // smaller steps than `limits`, or the cache does not have the model's layout.
  static result<std::unique_ptr<StepRunner>> create(model::Model& model, const KvMemory& kv,
                                                    device::Device& device, const ops::Ops& ops,
                                                    const StepLimits& limits);

  // Where the device records passes: has those recorded that decoding up to `max_rows` sequences is
  // likely to ask for, so that none is recorded while somebody waits. What there is no time for in
  // `most` is recorded when it comes. Blocks; before the first step. How many there are now.
  uint32_t warm_up(uint32_t max_rows, Duration most);

  // Whether some step could be begun now, and whether this one can: else only when those in flight
  // are finished.
  bool has_room() const { return in_flight_ == 0 || (!is_inline() && in_flight_ < kMaxSteps); }
  bool can_begin(const StepBatch& batch) const;
  // Enqueues all of it. The batch and the observer stay until finish() has returned. At most
  // limits.max_slots samples. Token ids, positions and block tables must lie within vocabulary,
  // context and cache: whoever takes a request in checks that, here it is not looked at again.
  void begin(StepBatch& batch, StepObserver& observer);
  // Tells the layers of the oldest step in flight that are done by now. Whether all of the step is.
  // Blocks only where a layer is done here and, of other ranks, not yet on one.
  bool look();
  // Blocks until the oldest step in flight is done; fills its results in.
  void finish();
  uint32_t in_flight() const { return in_flight_; }

  // Both.
  void run(StepBatch& batch, StepObserver& observer);

 private:
  struct Step {
    StepBatch* batch = nullptr;
    StepObserver* observer = nullptr;  // null: nobody reads this batch's layers
    uint32_t told = 0;                 // layers, where the device runs behind the host
    StepOutputs outputs;
    std::unique_ptr<device::Event> done;
    // A device that runs behind the host, without a mirror: one a layer.
    std::vector<std::unique_ptr<device::Event>> layers;
  };

  StepRunner(model::Model& model, const KvMemory& kv, device::Device& device, const ops::Ops& ops,
             const StepLimits& limits);
  status allocate();
  bool is_inline() const { return device_.info().runs_inline; }
  uint32_t index_of(uint32_t nth_in_flight) const { return (oldest_ + nth_in_flight) % kMaxSteps; }
  void copy_blocks(const StepBatch& batch);
  void put_together(const StepBatch& batch);
  TokenId token_of(SlotId slot) const;
  void layer_done(device::Stream& stream, uint32_t layer) override;
  bool tell_layers(uint32_t index, bool wait);
  bool is_layer_done(uint32_t index, uint32_t layer) const;
  void tell_layer(Step& step, uint32_t layer);
  void tell_digested(Step& step, uint32_t layer);
  void tell_under_way(bool under_way);
  void digest(StepSequence& sequence, uint32_t layer);
  void add_up_digests(StepBatch& batch, uint32_t end_layer);
  void wait_for_ranks(const Step& step);

  model::Model& model_;
  const KvMemory kv_;
  device::Device& device_;
  const ops::Ops& ops_;
  const StepLimits limits_;
  std::unique_ptr<device::Stream> stream_;
  std::unique_ptr<KvMirror> mirror_;  // null where the host takes the digests, or nobody
  SamplerSlots slots_;
  device::Buffer drawn_;  // the token that each slot drew last, on the device; [max_slots]

  std::array<Step, kMaxSteps> steps_;  // a ring
  uint32_t oldest_ = 0, in_flight_ = 0;
  uint32_t beginning_ = 0;  // index of the step whose pass is being enqueued

  // Of the step that is being put together.
  std::vector<TokenId> tokens_;
  std::vector<uint32_t> positions_;
  std::vector<ops::SequenceRows> sequences_;

  // Of ranks: digests up to this layer are those of all heads; and scratch.
  uint32_t added_up_ = 0;
  std::vector<uint64_t> digest_sums_;
};

}  // namespace baton::engine
