#include "common/engine/step_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "common/base/log.h"
#include "common/kvcache/digest.h"

namespace baton::engine {
namespace {

bool wants_digest(const StepBatch& batch) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const StepSequence& s) { return s.digest; });
}

status check(const model::Model& model, const KvMemory& kv, const StepLimits& limits) {
  if (limits.max_rows > model.max_rows() || limits.max_sequences > model.max_sequences() ||
      limits.max_slots > model.max_samples() || limits.max_context > model.max_context()) {
    return error(Errc::kInvalidArgument,
                 fmt::format("steps of {} rows, {} sequences, {} slots and {} tokens of context "
                             "are more than the model was loaded for ({}, {}, {}, {})",
                             limits.max_rows, limits.max_sequences, limits.max_slots,
                             limits.max_context, model.max_rows(), model.max_sequences(),
                             model.max_samples(), model.max_context()));
  }
  const kvcache::KvLayout layout = kv.device.layout().on_its_own();
  const kvcache::KvLayout wanted = model.kv_layout(layout.block_tokens).shard(model.rank());
  if (layout != wanted.on_its_own()) {
    return error(Errc::kInvalidArgument,
                 fmt::format("the cache is laid out as {}, the model's as {}", layout.to_string(),
                             wanted.to_string()));
  }
  if (kv.host.layout().on_its_own() != layout || kv.host.num_blocks() != kv.device.num_blocks()) {
    return error(Errc::kInvalidArgument,
                 "the host's side of the cache has another layout or size than the device's");
  }
  return {};
}

}  // namespace

StepRunner::StepRunner(model::Model& model, const KvMemory& kv, device::Device& device,
                       const ops::Ops& ops, const StepLimits& limits)
    : model_(model),
      kv_(kv),
      device_(device),
      ops_(ops),
      limits_(limits),
      stream_(device.make_stream()),
      slots_(limits.max_slots, limits.max_context, model.config().vocab_size) {
  tokens_.reserve(limits.max_rows);
  positions_.reserve(limits.max_rows);
  sequences_.reserve(limits.max_sequences);
}

status StepRunner::allocate() {
  for (Step& step : steps_) {
    BATON_TRY(step.outputs, StepOutputs::create(model_, device_, ops_, limits_));
    step.done = stream_->make_event();
  }
  if (is_inline()) return {};
  BATON_TRY(drawn_, device_.allocate(limits_.max_slots * sizeof(TokenId)));
  if (kv_.is_read_on_device || kv_.host.memory().data() != kv_.device.memory().data()) {
    // Rows that a step digests, and for each sequence a block that begins before and ends behind.
    const uint32_t blocks =
        limits_.max_rows / kv_.device.layout().block_tokens + 2 * limits_.max_sequences;
    BATON_TRY(mirror_, KvMirror::create(kv_.device, kv_.host, device_, ops_, blocks, kMaxSteps));
    return {};
  }
  for (Step& step : steps_) {
    for (uint32_t i = 0; i < model_.config().num_layers; ++i) {
      step.layers.push_back(stream_->make_event());
    }
  }
  return {};
}

result<std::unique_ptr<StepRunner>> StepRunner::create(model::Model& model, const KvMemory& kv,
                                                       device::Device& device, const ops::Ops& ops,
                                                       const StepLimits& limits) {
  BATON_CHECK_OK(check(model, kv, limits));
  std::unique_ptr<StepRunner> runner(new StepRunner(model, kv, device, ops, limits));
  BATON_CHECK_OK(runner->allocate());
  return runner;
}

void StepRunner::run(StepBatch& batch, StepObserver& observer) {
  begin(batch, observer);
  finish();
}

uint32_t StepRunner::warm_up(uint32_t max_rows, Duration most) {
  assert(in_flight_ == 0);
  if (!device_.info().captures || most <= Duration::zero()) return 0;
  const TimePoint begun = Clock::now();
  const auto shapes = model::PassGraphs::likely_shapes(max_rows, limits_.max_context,
                                                       model_.max_recorded_rows(), true);
  uint32_t done = 0;
  while (done < shapes.size() && Clock::now() - begun < most) {
    model_.warm_up(*stream_, kv_.device, reinterpret_cast<TokenId*>(drawn_.data()), shapes[done++]);
    stream_->synchronize();
  }
  LOG_INFO("recorded {} of {} likely decode passes of up to {} sequences in {:.2f} s", done,
           shapes.size(), max_rows, to_seconds(Clock::now() - begun));
  return done;
}

// A draw whose parameters depend on tokens that are still being drawn has to wait for them.
bool StepRunner::can_begin(const StepBatch& batch) const {
  if (in_flight_ == 0) return true;
  return has_room() &&
         std::none_of(batch.samples.begin(), batch.samples.end(), [&](const StepSample& s) {
           return slots_.needs_tokens(s.slot) && slots_.is_drawing(s.slot);
         });
}

void StepRunner::begin(StepBatch& batch, StepObserver& observer) {
  assert(can_begin(batch));
  if (in_flight_ == 0) tell_under_way(true);
  beginning_ = index_of(in_flight_++);
  Step& step = steps_[beginning_];
  step.batch = &batch;
  step.observer = wants_digest(batch) ? &observer : nullptr;
  step.told = 0;
  if (mirror_ != nullptr) {
    mirror_->bring_in(*stream_, batch.arrived);
    mirror_->begin(beginning_, batch);
  }
  copy_blocks(batch);
  for (const SlotOpen& open : batch.opens) slots_.open(open);
  if (!batch.sequences.empty()) {
    put_together(batch);
    step.outputs.plan(batch);
    auto* const drawn = reinterpret_cast<TokenId*>(drawn_.data());
    model_.forward(*stream_,
                   {.tokens = tokens_,
                    .positions = positions_,
                    .sequences = sequences_,
                    .outputs = step.outputs.rows(),
                    .drawn = drawn},
                   kv_.device, step.observer == nullptr ? nullptr : this);
    step.outputs.enqueue(*stream_, batch, slots_, drawn);
  }
  stream_->record(*step.done);
}

bool StepRunner::look() {
  assert(in_flight_ > 0);
  return tell_layers(oldest_, /*wait=*/false) && steps_[oldest_].done->done();
}

void StepRunner::finish() {
  assert(in_flight_ > 0);
  const uint32_t index = oldest_;
  Step& step = steps_[index];
  tell_layers(index, /*wait=*/true);
  step.done->wait();
  wait_for_ranks(step);
  if (!step.batch->sequences.empty()) step.outputs.take(*step.batch, slots_);
  oldest_ = index_of(1);
  --in_flight_;
  tell_under_way(in_flight_ > 0);
}

void StepRunner::tell_under_way(bool under_way) {
  if (model_.collective() != nullptr) model_.collective()->tell_under_way(under_way);
}

void StepRunner::copy_blocks(const StepBatch& batch) {
  for (const auto& [from, to] : batch.block_copies) {
    const auto source = kv_.device.block(from);
    device_.copy(*stream_, kv_.device.block(to).data(), source.data(), source.size());
  }
}

// Tokens, positions and rows of all sequences, one after the other.
void StepRunner::put_together(const StepBatch& batch) {
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  for (const StepSequence& s : batch.sequences) {
    sequences_.push_back({.first_row = static_cast<uint32_t>(tokens_.size()),
                          .num_rows = s.num_rows,
                          .position = s.position,
                          .block_table = s.block_table.data()});
    assert(s.num_rows > 0 && s.position + s.num_rows <= limits_.max_context);
    assert(s.block_table.size() >= kv_.device.layout().blocks_for(s.position + s.num_rows));
    if (s.tokens.empty()) {
      assert(s.num_rows == 1);
      tokens_.push_back(token_of(s.last_of));
    } else {
      assert(s.tokens.size() == s.num_rows);
      tokens_.insert(tokens_.end(), s.tokens.begin(), s.tokens.end());
    }
    for (uint32_t i = 0; i < s.num_rows; ++i) positions_.push_back(s.position + i);
  }
  assert(tokens_.size() <= limits_.max_rows && sequences_.size() <= limits_.max_sequences);
}

// The token that the slot drew last, or where the device will find it.
TokenId StepRunner::token_of(SlotId slot) const {
  return slots_.is_drawing(slot) ? -1 - static_cast<TokenId>(slot.value) : slots_.last_token(slot);
}

// Where the device runs inline, the layer's K and V are in the core's cache now; elsewhere finish()
// waits for them.
void StepRunner::layer_done(device::Stream& stream, uint32_t layer) {
  if (is_inline()) {
    tell_layer(steps_[beginning_], layer);
  } else if (mirror_ != nullptr) {
    mirror_->take_out(beginning_, stream, layer);
  } else {
    stream.record(*steps_[beginning_].layers[layer]);
  }
}

// From the first that was not told on, up to one that is not done yet, unless that is waited for.
// Whether all have been told; where the device runs inline, they have.
bool StepRunner::tell_layers(uint32_t index, bool wait) {
  Step& step = steps_[index];
  if (step.observer == nullptr || is_inline()) return true;
  for (; step.told < model_.config().num_layers; ++step.told) {
    const uint32_t layer = step.told;
    if (!wait && !is_layer_done(index, layer)) return false;
    if (mirror_ != nullptr) {
      mirror_->finish(index, layer, *step.batch);
      tell_digested(step, layer);
    } else {
      step.layers[layer]->wait();
      tell_layer(step, layer);
    }
  }
  return true;
}

bool StepRunner::is_layer_done(uint32_t index, uint32_t layer) const {
  return mirror_ != nullptr ? mirror_->is_taken_out(index, layer)
                            : steps_[index].layers[layer]->done();
}

void StepRunner::tell_layer(Step& step, uint32_t layer) {
  for (StepSequence& s : step.batch->sequences) {
    if (s.digest) digest(s, layer);
  }
  tell_digested(step, layer);
}

void StepRunner::tell_digested(Step& step, uint32_t layer) {
  if (layer == 0) added_up_ = 0;
  if (model_.collective() != nullptr && step.batch->is_told(layer)) {
    add_up_digests(*step.batch, layer + 1);
  }
  step.observer->on_layer(*step.batch, layer);
}

// Of each block that the rows touch, all tokens up to the rows' end: a chunk that starts within a
// block digests what earlier steps wrote there, too.
void StepRunner::digest(StepSequence& s, uint32_t layer) {
  const kvcache::KvLayout& layout = kv_.host.layout();
  const uint32_t first = s.position / layout.block_tokens;
  const uint32_t end = s.position + s.num_rows, blocks = layout.blocks_for(end) - first;
  if (layer == 0) s.digests.resize(size_t{layout.num_layers()} * blocks);
  for (uint32_t i = 0; i < blocks; ++i) {
    const uint32_t position = (first + i) * layout.block_tokens;
    s.digests[size_t{layer} * blocks + i] =
        kvcache::digest_layer(layout, kv_.host.block(s.block_table[first + i]).data(), layer,
                              position, std::min(layout.block_tokens, end - position));
  }
}

// A step that is done on the first rank has written all it will: whoever frees blocks then, or has
// them read into, must not meet a rank that comes late. Outputs have been gathered from all ranks;
// without any, the first rank hears from them here.
void StepRunner::wait_for_ranks(const Step& step) {
  const bool has_outputs = !step.batch->sequences.empty() && !step.outputs.rows().empty();
  if (model_.collective() == nullptr || has_outputs) return;
  uint64_t nothing = 0;
  model_.collective()->sum_on_first({&nothing, 1});
}

// Each rank has digested its own heads; digests add up. All layers since the last time at once.
void StepRunner::add_up_digests(StepBatch& batch, uint32_t end_layer) {
  const uint32_t layers = kv_.host.layout().num_layers();
  const auto each = [&](const auto& visit) {
    for (StepSequence& s : batch.sequences) {
      if (!s.digest) continue;
      const size_t blocks = s.digests.size() / layers;
      visit(std::span(s.digests).subspan(added_up_ * blocks, (end_layer - added_up_) * blocks));
    }
  };
  digest_sums_.clear();
  each([&](std::span<uint64_t> part) {
    digest_sums_.insert(digest_sums_.end(), part.begin(), part.end());
  });
  model_.collective()->sum_on_first(digest_sums_);
  auto sum = digest_sums_.cbegin();
  each([&](std::span<uint64_t> part) {
    std::copy_n(sum, part.size(), part.begin());
    sum += static_cast<std::ptrdiff_t>(part.size());
  });
  added_up_ = end_layer;
}

}  // namespace baton::engine
