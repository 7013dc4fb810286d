#include "common/engine/step_outputs.h"

#include <algorithm>
#include <cassert>

namespace baton::engine {

result<StepOutputs> StepOutputs::create(model::Model& model, device::Device& device,
                                        const ops::Ops& ops, const StepLimits& limits) {
  StepOutputs o;
  o.model_ = &model;
  o.ops_ = &ops;
  o.max_samples_ = limits.max_slots;
  o.rows_.reserve(limits.max_sequences + limits.max_slots);
  o.outputs_.reserve(limits.max_sequences);
  o.sample_output_.reserve(limits.max_slots);
  o.sample_rows_.reserve(limits.max_slots);
  o.sample_index_.reserve(limits.max_slots);
  o.draws_.reserve(limits.max_slots);
  const size_t scores = limits.max_rows;
  const size_t results = (limits.max_slots + scores) * sizeof(ops::SampleResult);
  BATON_TRY(o.memory_, device.allocate_host(results + scores * sizeof(TokenId)));
  auto* first = reinterpret_cast<ops::SampleResult*>(o.memory_.data());
  o.sample_results_ = {first, limits.max_slots};
  o.score_results_ = {first + limits.max_slots, scores};
  o.score_tokens_ = {reinterpret_cast<TokenId*>(o.memory_.data() + results), scores};
  return o;
}

// The first sample of a sequence whose last row is scored shares that row's output: scoring leaves
// logits as they are, sampling does not.
void StepOutputs::plan(const StepBatch& batch) {
  assert(batch.samples.size() <= max_samples_);
  rows_.clear();
  outputs_.clear();
  sample_output_.clear();
  num_outputs_ = 0;
  for (uint32_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    Outputs& out = outputs_.emplace_back();
    if (s.prompt_logprobs < 0 || s.next_tokens.empty()) continue;
    out.num_scores = std::min(s.num_rows, static_cast<uint32_t>(s.next_tokens.size()));
    out.first_score = add(i, 0, out.num_scores);
  }
  for (const StepSample& sample : batch.samples) {
    const StepSequence& s = batch.sequences[sample.sequence];
    Outputs& out = outputs_[sample.sequence];
    const bool share = out.num_samples++ == 0 && out.num_scores == s.num_rows;
    sample_output_.push_back(share ? out.first_score + out.num_scores - 1
                                   : add(sample.sequence, s.num_rows - 1, 1));
  }
}

uint32_t StepOutputs::add(uint32_t sequence, uint32_t first_row, uint32_t count) {
  rows_.push_back({.sequence = sequence, .first = first_row, .count = count});
  num_outputs_ += count;
  return num_outputs_ - count;
}

void StepOutputs::enqueue(device::Stream& stream, StepBatch& batch, SamplerSlots& slots,
                          TokenId* drawn) {
  sample_rows_.clear();
  sample_index_.clear();
  draws_.clear();
  for (uint32_t first = 0; first < num_outputs_; first += model_->max_logit_rows()) {
    const uint32_t count = std::min(model_->max_logit_rows(), num_outputs_ - first);
    const device::Tensor logits = model_->logits(stream, first, count);
    score(stream, batch, logits, first, count);
    sample(stream, batch, slots, drawn, logits, first, count);
  }
  for (const uint32_t i : sample_index_) draws_.push_back(slots.begin_draw(batch.samples[i].slot));
}

// Scores the rows whose output is in [first, first + count), of which `logits` are.
void StepOutputs::score(device::Stream& stream, const StepBatch& batch,
                        const device::Tensor& logits, uint32_t first, uint32_t count) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    const Outputs& out = outputs_[i];
    if (out.num_scores == 0) continue;
    const uint32_t begin = std::max(first, out.first_score);
    const uint32_t end = std::min(first + count, out.first_score + out.num_scores);
    if (begin >= end) continue;
    const uint32_t n = end - begin;
    const auto tokens = score_tokens_.subspan(begin, n);
    std::copy_n(s.next_tokens.begin() + (begin - out.first_score), n, tokens.begin());
    ops_->score(stream, logits.slice_rows(begin - first, n), tokens,
                static_cast<uint32_t>(s.prompt_logprobs), score_results_.subspan(begin, n));
  }
}

// Draws the samples whose output is in [first, first + count), of which `logits` are.
void StepOutputs::sample(device::Stream& stream, const StepBatch& batch, SamplerSlots& slots,
                         TokenId* drawn, const device::Tensor& logits, uint32_t first,
                         uint32_t count) {
  const size_t begin = sample_rows_.size();
  for (uint32_t i = 0; i < batch.samples.size(); ++i) {
    const uint32_t output = sample_output_[i];
    if (output < first || output >= first + count) continue;
    const StepSequence& s = batch.sequences[batch.samples[i].sequence];
    const SlotId slot = batch.samples[i].slot;
    sample_rows_.push_back(slots.row(slot, output - first, s.position + s.num_rows));
    if (drawn != nullptr) sample_rows_.back().drawn = drawn + slot.value;
    sample_index_.push_back(i);
  }
  const size_t n = sample_rows_.size() - begin;
  if (n == 0) return;
  ops_->sample(stream, logits, std::span(sample_rows_).subspan(begin, n),
               sample_results_.subspan(begin, n));
}

void StepOutputs::take(StepBatch& batch, SamplerSlots& slots) {
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Outputs& out = outputs_[i];
    if (out.num_scores == 0) continue;
    const auto scores = score_results_.subspan(out.first_score, out.num_scores);
    batch.sequences[i].scores.assign(scores.begin(), scores.end());
  }
  for (size_t i = 0; i < draws_.size(); ++i) {
    StepSample& sample = batch.samples[sample_index_[i]];
    sample.result = sample_results_[i];
    slots.accept(draws_[i], sample.result.token);
  }
}

}  // namespace baton::engine
