// How well the latency model fits the steps of a real engine on this CPU.
//   latency_fit --model PATH --threads N --steps 600 [--profile-out FILE]
// Runs steps of random shape: prompt chunks, running sequences, both. On one half it calibrates a
// profile; on the other half that profile, and a model that started from a wrong one and learnt
// online, are each asked before the step is run.
#include <fmt/format.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/device/cpu/cpu_device.h"
#include "common/engine/step_runner.h"
#include "common/formats/model_files.h"
#include "common/latency/calibrate.h"
#include "common/latency/step_model.h"
#include "common/model/model.h"
#include "common/ops/cpu/cpu_ops.h"

namespace baton::latency {
namespace {

struct Options {
  std::string model;
  unsigned threads = 1;
  uint32_t steps = 600;
  uint32_t max_chunk = 512, max_batch = 32, max_context = 1536;
  uint64_t seed = 1;
  double wrong = 3;  // the online model's prior is off by this factor
  bool cpu_time = false;
  std::string profile_out;
};

// For one thread on a shared machine: without the time that others had the core.
Duration thread_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

class Runner final : private engine::StepObserver {
 public:
  explicit Runner(const Options& o) : o_(o), random_(o.seed) {
    device_ = device::make_cpu_device(o.threads);
    ops_ = ops::cpu_ops();
    const auto files = formats::ModelFiles::open(o.model).value();
    const uint32_t rows = o.max_chunk + o.max_batch, sequences = o.max_batch + 1;
    model_ =
        model::Model::load(files, *device_, ops_,
                           {.max_rows = rows, .max_sequences = sequences, .max_samples = sequences})
            .value();
    const kvcache::KvLayout layout = model_->kv_layout(16);
    kv_bytes_ = static_cast<uint32_t>(layout.block_bytes() / 16);
    blocks_each_ = layout.blocks_for(o.max_context + o.max_chunk + 1);
    const uint32_t blocks = blocks_each_ * sequences;
    memory_ = device_->allocate(layout.block_bytes() * blocks).value();
    std::fill_n(memory_.data(), memory_.bytes(), std::byte{0});
    const auto cache =
        kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout, blocks).value();
    runner_ = engine::StepRunner::create(*model_, {cache, cache}, *device_, ops_,
                                         {rows, sequences, sequences, model_->max_context()})
                  .value();
  }

  uint32_t kv_bytes_per_token() const { return kv_bytes_; }

  // A step of random shape.
  StepObservation run() {
    batch_.clear();
    StepWork work;
    const uint32_t kind = pick(0, 2);
    if (kind != 0) work += add_decode(pick_even(1, o_.max_batch));
    if (kind != 1) work += add_prefill(pick_even(1, o_.max_chunk), pick(0, o_.max_context));
    const auto now = [&] { return o_.cpu_time ? thread_time() : Clock::now().time_since_epoch(); };
    const Duration start = now();
    runner_->run(batch_, *this);
    return {work, now() - start};
  }

 private:
  void on_layer(engine::StepBatch&, uint32_t) override {}

  uint32_t pick(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  // Small and large ones alike: evenly in the logarithm.
  uint32_t pick_even(uint32_t low, uint32_t high) {
    std::uniform_real_distribution<double> exponent(std::log(low), std::log(high + 1.0));
    return std::clamp(static_cast<uint32_t>(std::exp(exponent(random_))), low, high);
  }

  engine::StepSequence& add(uint32_t index, uint32_t position, uint32_t rows) {
    engine::StepSequence& s = batch_.add_sequence();
    s.position = position;
    s.num_rows = rows;
    for (uint32_t i = 0; i < rows; ++i) {
      s.tokens.push_back(static_cast<TokenId>(pick(0, model_->config().vocab_size - 1)));
    }
    for (uint32_t i = 0; i < blocks_each_; ++i) {
      s.block_table.push_back(BlockId{index * blocks_each_ + i});
    }
    const auto at = static_cast<uint32_t>(batch_.sequences.size() - 1);
    batch_.opens.push_back({.slot = SlotId{index}, .params = {.temperature = 0}});
    batch_.samples.push_back({.sequence = at, .slot = SlotId{index}});
    return s;
  }

  StepWork add_decode(uint32_t sequences) {
    StepWork work;
    for (uint32_t i = 0; i < sequences; ++i) {
      const uint32_t position = pick(0, o_.max_context);
      add(i, position, 1);
      work += StepWork::decode(1, position + 1);
    }
    return work;
  }

  StepWork add_prefill(uint32_t rows, uint32_t cached) {
    add(o_.max_batch, cached, rows);
    return StepWork::prefill(rows, cached);
  }

  const Options o_;
  std::mt19937_64 random_;
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<model::Model> model_;
  device::Buffer memory_;
  std::unique_ptr<engine::StepRunner> runner_;
  engine::StepBatch batch_;
  uint32_t blocks_each_ = 0, kv_bytes_ = 0;
};

void report(const char* what, const ErrorWindow& e) {
  fmt::print(
      "  {:<8} {:4} steps   error {:5.1f} % median {:5.1f} % p95   actual / predicted {:.3f}\n",
      what, e.count(), 100 * e.error_quantile(0.5), 100 * e.error_quantile(0.95),
      e.ratio_quantile(0.5));
}

void report(const char* title, const std::array<ErrorWindow, kNumStepKinds>& errors) {
  fmt::print("{}\n", title);
  const char* names[] = {"prefill", "decode", "mixed"};
  for (size_t k = 0; k < kNumStepKinds; ++k) report(names[k], errors[k]);
}

int run(const Options& o) {
  Runner runner(o);
  for (int i = 0; i < 20; ++i) runner.run();  // warm up
  std::vector<StepObservation> first, second;
  for (uint32_t i = 0; i < o.steps; ++i) (i < o.steps / 2 ? first : second).push_back(runner.run());

  const StepCosts costs = calibrate(first);
  const Profile profile{
      .name = "measured",
      .source = fmt::format("latency_fit on {} with {} threads",
                            std::filesystem::path(o.model).filename().string(), o.threads),
      .kv_bytes_per_token = runner.kv_bytes_per_token(),
      .step = costs,
      .link = {.latency = 50e-6, .byte = 2e-10}};
  fmt::print("{}\n", to_yaml(profile));

  StepCosts wrong = costs;
  for (double* c : {&wrong.fixed, &wrong.row, &wrong.row_beyond, &wrong.context_token,
                    &wrong.attended_pair, &wrong.output}) {
    *c *= o.wrong;
  }
  StepModel online(wrong);
  for (const StepObservation& s : first) online.observe(s.work, s.took);
  std::array<ErrorWindow, kNumStepKinds> fixed, learnt;
  for (const StepObservation& s : second) {
    const auto kind = static_cast<size_t>(s.work.kind());
    fixed[kind].add(step_time(costs, s.work), s.took);
    learnt[kind].add(online.predict(s.work), s.took);
    online.observe(s.work, s.took);
  }
  report("calibrated on the first half, asked about the second", fixed);
  report(fmt::format("online, from a prior {} times too slow", o.wrong).c_str(), learnt);
  if (!o.profile_out.empty()) std::ofstream(o.profile_out) << to_yaml(profile);
  return 0;
}

}  // namespace
}  // namespace baton::latency

int main(int argc, char** argv) {
  baton::latency::Options o;
  CLI::App app("Fits the latency model to this machine's engine");
  app.add_option("--model", o.model, "GGUF file or Hugging Face directory")->required();
  app.add_option("--threads", o.threads, "threads of the device");
  app.add_option("--steps", o.steps, "steps in all");
  app.add_option("--max-chunk", o.max_chunk, "prompt tokens of a step");
  app.add_option("--max-batch", o.max_batch, "running sequences of a step");
  app.add_option("--max-context", o.max_context, "tokens that are there before");
  app.add_option("--seed", o.seed, "of the shapes");
  app.add_option("--wrong", o.wrong, "by what factor the online model's prior is off");
  app.add_flag("--cpu-time", o.cpu_time, "measure the thread's time on a core; with one thread");
  app.add_option("--profile-out", o.profile_out, "where to write the profile");
  CLI11_PARSE(app, argc, argv);
  return baton::latency::run(o);
}
