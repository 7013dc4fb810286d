#include "common/engine/step_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "common/kvcache/digest.h"

namespace baton::engine {
namespace {

bool wants_digest(const StepBatch& batch) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const StepSequence& s) { return s.digest; });
}

status check(const model::Model& model, const kvcache::KvCache& cache, const StepLimits& limits) {
  if (limits.max_rows > model.max_rows() || limits.max_sequences > model.max_sequences() ||
      limits.max_slots > model.max_samples() || limits.max_context > model.max_context()) {
    return error(Errc::kInvalidArgument,
                 fmt::format("steps of {} rows, {} sequences, {} slots and {} tokens of context "
                             "are more than the model was loaded for ({}, {}, {}, {})",
                             limits.max_rows, limits.max_sequences, limits.max_slots,
                             limits.max_context, model.max_rows(), model.max_sequences(),
                             model.max_samples(), model.max_context()));
  }
  if (cache.layout() != model.kv_layout(cache.layout().block_tokens)) {
    return error(
        Errc::kInvalidArgument,
        fmt::format("the cache is laid out as {}, the model's as {}", cache.layout().to_string(),
                    model.kv_layout(cache.layout().block_tokens).to_string()));
  }
  return {};
}

}  // namespace

StepRunner::StepRunner(model::Model& model, const kvcache::KvCache& cache, device::Device& device,
                       const ops::Ops& ops, const StepLimits& limits)
    : model_(model),
      cache_(cache),
      device_(device),
      ops_(ops),
      limits_(limits),
      stream_(device.make_stream()),
      slots_(limits.max_slots, limits.max_context, model.config().vocab_size) {
  if (!device.info().runs_inline) {
    for (uint32_t i = 0; i < model.config().num_layers; ++i) {
      layer_events_.push_back(stream_->make_event());
    }
  }
  tokens_.reserve(limits.max_rows);
  positions_.reserve(limits.max_rows);
  sequences_.reserve(limits.max_sequences);
  output_rows_.reserve(limits.max_sequences + limits.max_slots);
  outputs_.reserve(limits.max_sequences);
  sample_output_.reserve(limits.max_slots);
  sample_rows_.reserve(limits.max_slots);
  sample_index_.reserve(limits.max_slots);
}

status StepRunner::allocate() {
  const size_t scores = size_t{limits_.max_rows} + limits_.max_sequences;
  const size_t results = (limits_.max_slots + scores) * sizeof(ops::SampleResult);
  BATON_TRY(results_memory_, device_.allocate_host(results + scores * sizeof(TokenId)));
  auto* first = reinterpret_cast<ops::SampleResult*>(results_memory_.data());
  sample_results_ = {first, limits_.max_slots};
  score_results_ = {first + limits_.max_slots, scores};
  score_tokens_ = {reinterpret_cast<TokenId*>(results_memory_.data() + results), scores};
  return {};
}

result<std::unique_ptr<StepRunner>> StepRunner::create(model::Model& model,
                                                       const kvcache::KvCache& cache,
                                                       device::Device& device, const ops::Ops& ops,
                                                       const StepLimits& limits) {
  BATON_CHECK_OK(check(model, cache, limits));
  std::unique_ptr<StepRunner> runner(new StepRunner(model, cache, device, ops, limits));
  BATON_CHECK_OK(runner->allocate());
  return runner;
}

void StepRunner::run(StepBatch& batch, StepObserver& observer) {
  batch_ = &batch;
  observer_ = wants_digest(batch) ? &observer : nullptr;
  copy_blocks(batch);
  for (const SlotOpen& open : batch.opens) slots_.open(open);
  if (!batch.sequences.empty()) {
    put_together(batch);
    plan_outputs(batch);
    model_.forward(*stream_,
                   {.tokens = tokens_,
                    .positions = positions_,
                    .sequences = sequences_,
                    .outputs = output_rows_},
                   cache_, observer_ == nullptr ? nullptr : this);
    read_out(batch);
  }
  stream_->synchronize();
}

void StepRunner::copy_blocks(const StepBatch& batch) {
  for (const auto& [from, to] : batch.block_copies) {
    const auto source = cache_.block(from);
    device_.copy(*stream_, cache_.block(to).data(), source.data(), source.size());
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
    assert(s.block_table.size() >= cache_.layout().blocks_for(s.position + s.num_rows));
    if (s.tokens.empty()) {
      assert(s.num_rows == 1);
      tokens_.push_back(slots_.last_token(s.last_of));
    } else {
      assert(s.tokens.size() == s.num_rows);
      tokens_.insert(tokens_.end(), s.tokens.begin(), s.tokens.end());
    }
    for (uint32_t i = 0; i < s.num_rows; ++i) positions_.push_back(s.position + i);
  }
  assert(tokens_.size() <= limits_.max_rows && sequences_.size() <= limits_.max_sequences);
}

// Outputs: the scored rows of each sequence, then one for each sample. The first sample of a
// sequence whose last row is scored shares that row's output: scoring leaves logits as they are,
// sampling does not.
void StepRunner::plan_outputs(const StepBatch& batch) {
  assert(batch.samples.size() <= limits_.max_slots);
  output_rows_.clear();
  outputs_.clear();
  sample_output_.clear();
  sample_rows_.clear();
  sample_index_.clear();
  num_outputs_ = 0;
  for (uint32_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    Outputs& out = outputs_.emplace_back();
    if (s.prompt_logprobs < 0 || s.next_tokens.empty()) continue;
    out.num_scores = std::min(s.num_rows, static_cast<uint32_t>(s.next_tokens.size()));
    out.first_score = add_output(i, 0, out.num_scores);
  }
  for (const StepSample& sample : batch.samples) {
    const StepSequence& s = batch.sequences[sample.sequence];
    Outputs& out = outputs_[sample.sequence];
    const bool share = out.num_samples++ == 0 && out.num_scores == s.num_rows;
    sample_output_.push_back(share ? out.first_score + out.num_scores - 1
                                   : add_output(sample.sequence, s.num_rows - 1, 1));
  }
}

uint32_t StepRunner::add_output(uint32_t sequence, uint32_t first_row, uint32_t count) {
  output_rows_.push_back({.sequence = sequence, .first = first_row, .count = count});
  num_outputs_ += count;
  return num_outputs_ - count;
}

// Where the device runs inline, the layer's K and V are in the core's cache now; elsewhere
// read_out() waits for them.
void StepRunner::layer_done(device::Stream& stream, uint32_t layer) {
  if (layer_events_.empty()) {
    tell_layer(layer);
  } else {
    stream.record(*layer_events_[layer]);
  }
}

void StepRunner::tell_layer(uint32_t layer) {
  for (StepSequence& s : batch_->sequences) {
    if (s.digest) digest(s, layer);
  }
  observer_->on_layer(*batch_, layer);
}

// Of each block that the rows touch, all tokens up to the rows' end: a chunk that starts within a
// block digests what earlier steps wrote there, too.
void StepRunner::digest(StepSequence& s, uint32_t layer) {
  const kvcache::KvLayout& layout = cache_.layout();
  const uint32_t first = s.position / layout.block_tokens;
  const uint32_t end = s.position + s.num_rows, blocks = layout.blocks_for(end) - first;
  if (layer == 0) s.digests.resize(size_t{layout.num_layers()} * blocks);
  for (uint32_t i = 0; i < blocks; ++i) {
    const uint32_t position = (first + i) * layout.block_tokens;
    s.digests[size_t{layer} * blocks + i] =
        kvcache::digest_layer(layout, cache_.block(s.block_table[first + i]).data(), layer,
                              position, std::min(layout.block_tokens, end - position));
  }
}

void StepRunner::read_out(StepBatch& batch) {
  if (observer_ != nullptr) {
    for (uint32_t layer = 0; layer < layer_events_.size(); ++layer) {
      layer_events_[layer]->wait();
      tell_layer(layer);
    }
  }
  for (uint32_t first = 0; first < num_outputs_; first += model_.max_logit_rows()) {
    const uint32_t count = std::min(model_.max_logit_rows(), num_outputs_ - first);
    const device::Tensor logits = model_.logits(*stream_, first, count);
    score(batch, logits, first, count);
    sample(batch, logits, first, count);
  }
  stream_->synchronize();
  take_results(batch);
}

// Scores the rows whose output is in [first, first + count), of which `logits` are.
void StepRunner::score(StepBatch& batch, const device::Tensor& logits, uint32_t first,
                       uint32_t count) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    StepSequence& s = batch.sequences[i];
    const Outputs& out = outputs_[i];
    if (out.num_scores == 0) continue;
    const uint32_t begin = std::max(first, out.first_score);
    const uint32_t end = std::min(first + count, out.first_score + out.num_scores);
    if (begin >= end) continue;
    const uint32_t at = begin - out.first_score, n = end - begin;
    const auto tokens = score_tokens_.subspan(begin, n);
    std::copy_n(s.next_tokens.begin() + at, n, tokens.begin());
    ops_.score(*stream_, logits.slice_rows(begin - first, n), tokens,
               static_cast<uint32_t>(s.prompt_logprobs), score_results_.subspan(begin, n));
  }
}

// Draws the samples whose output is in [first, first + count), of which `logits` are.
void StepRunner::sample(StepBatch& batch, const device::Tensor& logits, uint32_t first,
                        uint32_t count) {
  const size_t done = sample_rows_.size();
  for (uint32_t i = 0; i < batch.samples.size(); ++i) {
    const uint32_t output = sample_output_[i];
    if (output < first || output >= first + count) continue;
    const StepSequence& s = batch.sequences[batch.samples[i].sequence];
    sample_rows_.push_back(
        slots_.row(batch.samples[i].slot, output - first, s.position + s.num_rows));
    sample_index_.push_back(i);
  }
  const size_t count_now = sample_rows_.size() - done;
  if (count_now == 0) return;
  ops_.sample(*stream_, logits, std::span(sample_rows_).subspan(done),
              sample_results_.subspan(done, count_now));
}

// What the device has left, into the batch.
void StepRunner::take_results(StepBatch& batch) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Outputs& out = outputs_[i];
    if (out.num_scores == 0) continue;
    const auto scores = score_results_.subspan(out.first_score, out.num_scores);
    batch.sequences[i].scores.assign(scores.begin(), scores.end());
  }
  for (size_t i = 0; i < sample_index_.size(); ++i) {
    StepSample& sample = batch.samples[sample_index_[i]];
    sample.result = sample_results_[i];
    slots_.accept(sample.slot, sample.result.token);
  }
}

}  // namespace baton::engine
