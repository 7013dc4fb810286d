#include "doctor/step_profiler.h"

#include <algorithm>
#include <cmath>

#include "common/base/host_memory.h"
#include "common/formats/model_files.h"
#include "common/latency/step_model.h"

namespace baton::doctor {
namespace {

using latency::StepObservation;
using latency::StepWork;

constexpr int kWarmUp = 20;
constexpr size_t kFewestSteps = 60;
constexpr Duration kSayEvery = seconds(2);

}  // namespace

result<std::unique_ptr<StepProfiler>> StepProfiler::create(const std::filesystem::path& model,
                                                           device::Device& device,
                                                           const ops::Ops& ops,
                                                           const StepShapes& shapes) {
  std::unique_ptr<StepProfiler> made(new StepProfiler(device, ops, shapes));
  BATON_CHECK_OK(made->load(model));
  return made;
}

status StepProfiler::load(const std::filesystem::path& path) {
  BATON_TRY(const auto files, formats::ModelFiles::open(path));
  const uint32_t most = files.config().max_position;
  shapes_.max_chunk = std::min(shapes_.max_chunk, most / 2);
  shapes_.max_context = std::min(shapes_.max_context, most - shapes_.max_chunk - 1);
  const uint32_t rows = shapes_.max_chunk + shapes_.max_batch, sequences = shapes_.max_batch + 1;
  BATON_TRY(model_, model::Model::load(files, device_, ops_,
                                       {.weights = shapes_.dtype,
                                        .cache = shapes_.dtype,
                                        .max_rows = rows,
                                        .max_sequences = sequences,
                                        .max_samples = sequences}));
  const kvcache::KvLayout layout = model_->kv_layout(shapes_.block_tokens);
  kv_bytes_ = static_cast<uint32_t>(layout.block_bytes() / shapes_.block_tokens);
  blocks_each_ = layout.blocks_for(shapes_.max_context + shapes_.max_chunk + 1);
  const uint32_t blocks = blocks_each_ * sequences;
  const bool on_host = device_.info().host_addressable;
  if (on_host) {
    BATON_CHECK_OK(
        check_room("the KV cache of the steps", layout.block_bytes() * blocks, read_host_memory()));
  }
  BATON_TRY(memory_, device_.allocate(layout.block_bytes() * blocks));
  if (on_host) {
    std::fill_n(memory_.data(), memory_.bytes(), std::byte{0});
  }
  BATON_TRY(const auto cache,
            kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout, blocks));
  BATON_TRY(runner_,
            engine::StepRunner::create(*model_, {cache, cache}, device_, ops_,
                                       {rows, sequences, sequences, model_->max_context()}));
  return {};
}

StepObservation StepProfiler::run(const Now& now) {
  batch_.clear();
  StepWork work;
  const uint32_t kind = pick(0, 2);
  if (kind != 0) work += add_decode(pick_even(1, shapes_.max_batch));
  if (kind != 1) {
    const uint32_t rows = pick_even(1, shapes_.max_chunk), cached = pick(0, shapes_.max_context);
    add(shapes_.max_batch, cached, rows);
    work += StepWork::prefill(rows, cached);
  }
  const Duration begun = now();
  runner_->run(batch_, *this);
  return {work, now() - begun};
}

StepObservation StepProfiler::run() {
  return run([] { return Clock::now().time_since_epoch(); });
}

uint32_t StepProfiler::pick(uint32_t low, uint32_t high) {
  return std::uniform_int_distribution<uint32_t>(low, high)(random_);
}

// Small and large ones alike: evenly in the logarithm.
uint32_t StepProfiler::pick_even(uint32_t low, uint32_t high) {
  std::uniform_real_distribution<double> exponent(std::log(low), std::log(high + 1.0));
  return std::clamp(static_cast<uint32_t>(std::exp(exponent(random_))), low, high);
}

void StepProfiler::add(uint32_t index, uint32_t position, uint32_t rows) {
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
}

StepWork StepProfiler::add_decode(uint32_t sequences) {
  StepWork work;
  for (uint32_t i = 0; i < sequences; ++i) {
    const uint32_t position = pick(0, shapes_.max_context);
    add(i, position, 1);
    work += StepWork::decode(1, position + 1);
  }
  return work;
}

StepsFound measure_steps(StepProfiler& profiler, Duration time,
                         const std::function<void(double)>& progress) {
  for (int i = 0; i < kWarmUp; ++i) (void)profiler.run();
  std::vector<StepObservation> first, second;
  const TimePoint begun = Clock::now();
  TimePoint said = begun;
  for (TimePoint now = begun; now - begun < time || first.size() + second.size() < kFewestSteps;
       now = Clock::now()) {
    // Alternately: what slows the machine for a while is in both.
    (first.size() > second.size() ? second : first).push_back(profiler.run());
    if (now - said < kSayEvery) continue;
    said = now;
    progress(std::min(1.0, to_seconds(now - begun) / to_seconds(time)));
  }
  StepsFound found{.costs = latency::calibrate(first),
                   .steps = static_cast<uint32_t>(first.size() + second.size())};
  for (const StepObservation& s : second) {
    found.errors[static_cast<size_t>(s.work.kind())].add(latency::step_time(found.costs, s.work),
                                                         s.took);
  }
  return found;
}

}  // namespace baton::doctor
