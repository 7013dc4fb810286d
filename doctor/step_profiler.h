#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/engine/step_runner.h"
#include "common/latency/calibrate.h"
#include "common/latency/error_window.h"
#include "common/model/model.h"
#include "common/ops/ops.h"

namespace baton::doctor {

struct StepShapes {
  DType dtype = DType::kBF16;
  uint32_t block_tokens = 16;
  uint32_t max_chunk = 512;     // prompt tokens of a step
  uint32_t max_batch = 32;      // running sequences of a step
  uint32_t max_context = 1536;  // tokens that are there before; at most what the model allows
  uint64_t seed = 1;
};

// Runs steps of random shape on an engine of its own: prompt chunks, running sequences, both. What
// the cache holds means nothing.
class StepProfiler final : private engine::StepObserver {
 public:
  // Loads the model; device and ops outlive it. Blocks.
  static result<std::unique_ptr<StepProfiler>> create(const std::filesystem::path& model,
                                                      device::Device& device, const ops::Ops& ops,
                                                      const StepShapes& shapes);

  uint32_t kv_bytes_per_token() const { return kv_bytes_; }
  // One step, by `now`: the wall clock's time, or another.
  using Now = std::function<Duration()>;
  latency::StepObservation run(const Now& now);
  latency::StepObservation run();

 private:
  StepProfiler(device::Device& device, const ops::Ops& ops, const StepShapes& shapes)
      : device_(device), ops_(ops), shapes_(shapes), random_(shapes.seed) {}
  status load(const std::filesystem::path& model);
  void on_layer(engine::StepBatch&, uint32_t) override {}
  uint32_t pick(uint32_t low, uint32_t high);
  uint32_t pick_even(uint32_t low, uint32_t high);
  void add(uint32_t index, uint32_t position, uint32_t rows);
  latency::StepWork add_decode(uint32_t sequences);

  device::Device& device_;
  const ops::Ops& ops_;
  StepShapes shapes_;
  std::mt19937_64 random_;
  std::unique_ptr<model::Model> model_;
  device::Buffer memory_;
  std::unique_ptr<engine::StepRunner> runner_;
  engine::StepBatch batch_;
  uint32_t blocks_each_ = 0, kv_bytes_ = 0;
};

struct StepsFound {
  latency::StepCosts costs;
  uint32_t steps = 0;
  std::array<latency::ErrorWindow, latency::kNumStepKinds> errors;  // on steps it had not seen
};
// Runs steps for about `time`, at least 60; calibrates on one half and asks about the other.
// `progress` gets the share that is done, from time to time.
StepsFound measure_steps(StepProfiler& profiler, Duration time,
                         const std::function<void(double)>& progress);

}  // namespace baton::doctor
