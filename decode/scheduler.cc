#include "decode/scheduler.h"

#include <algorithm>

#include "common/engine/client_mark.h"

namespace baton::decode {

using engine::Owner;
using engine::StepBatch;
using engine::StepBudget;
using engine::StepSequence;

namespace {

// What sequences hold lies far apart, and much else was done since their last step: of all that a
// step touches, memory is waited for together.
template <class T>
void prefetch(const T& value) {
  constexpr size_t kLine = 64;
  const auto* const bytes = reinterpret_cast<const char*>(&value);
  for (size_t at = 0; at < sizeof(T); at += kLine) __builtin_prefetch(bytes + at);
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config, const Resources& resources)
    : config_(config), shared_(resources) {}

void Scheduler::plan(StepBudget& budget, StepBatch& batch, Events& events) {
  batch.arrived.insert(batch.arrived.end(), arrived_.begin(), arrived_.end());
  arrived_.clear();
  preempt_for_test(events);
  for (const uint32_t index : running_) prefetch(sequences_[index]);
  for (const uint32_t index : running_) {
    prefetch(requests_[sequences_[index].request].info);
    __builtin_prefetch(sequences_[index].table.data());
  }
  // Preemption takes from the end, behind whoever is served.
  for (size_t rank = 0; rank < running_.size(); ++rank) {
    if (budget.rows == 0 || budget.sequences == 0) break;
    if (all_planned(sequences_[running_[rank]])) continue;
    if (!take_block(rank, batch, events)) continue;
    append_row(running_[rank], batch);
    --budget.rows;
    --budget.sequences;
  }
  budget.keep_free_blocks += growth_margin(0);
}

// Its last token is in a step in flight.
bool Scheduler::all_planned(const Sequence& s) const {
  return s.planned + 1 >= requests_[s.request].limit;
}

void Scheduler::preempt_for_test(Events& events) {
  if (config_.preempt_every_n_steps == 0 || running_.empty()) return;
  if (++plans_ % config_.preempt_every_n_steps == 0) preempt_sequence(running_.back(), events);
}

// Makes sure that the next row has a place. False: not in this step.
bool Scheduler::take_block(size_t rank, StepBatch& batch, Events& events) {
  Sequence& s = sequences_[running_[rank]];
  if (s.planned / shared_.hasher.block_tokens() < s.table.size()) return true;
  while (!shared_.pool.allocate(1, s.table)) {
    if (rank + 1 == running_.size() || room_is_coming()) return false;
    preempt_sequence(running_.back(), events);
  }
  const bool first_row = s.in_flight == 0;
  if (s.copy_from && first_row) batch.block_copies.emplace_back(*s.copy_from, s.table.back());
  return true;
}

// Whether the end of a step in flight gives back blocks anyway.
bool Scheduler::room_is_coming() const {
  const auto ends = [this](uint32_t index) { return all_planned(sequences_[index]); };
  return ending_ > 0 || std::any_of(running_.begin(), running_.end(), ends);
}

void Scheduler::append_row(uint32_t index, StepBatch& batch) {
  Sequence& s = sequences_[index];
  const engine::Request& request = requests_[s.request].info;
  if (!s.opened) open(s, batch);
  StepSequence& row = batch.add_sequence();
  row.request = request.key.request;
  row.position = s.planned;
  row.num_rows = 1;
  row.last_of = s.slot;
  const uint32_t output_index = s.planned - request.prompt_tokens;
  if (output_index < s.output.size()) row.tokens.push_back(s.output[output_index]);
  row.block_table.assign(s.table.begin(), s.table.end());
  row.client = engine::client_mark(Owner::kDecode, index);
  batch.samples.push_back(
      {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = s.slot});
  ++s.planned;
  ++s.in_flight;
}

void Scheduler::open(Sequence& s, StepBatch& batch) {
  const engine::Request& request = requests_[s.request].info;
  std::vector<TokenId> tokens = request.tokens;
  tokens.push_back(s.output.back());  // drawn by prefill
  batch.opens.push_back(engine::open_slot(s.slot, request, std::move(tokens), s.choice));
  s.opened = true;
}

void Scheduler::on_step_done(const StepBatch& batch, TimePoint now, Events& events) {
  for (const StepSequence& row : batch.sequences) {
    if (engine::belongs_to(row.client, Owner::kDecode)) {
      prefetch(sequences_[engine::entry_of(row.client)]);
    }
  }
  for (const StepSequence& row : batch.sequences) {
    if (!engine::belongs_to(row.client, Owner::kDecode)) continue;
    const Sequence& s = sequences_[engine::entry_of(row.client)];
    if (s.ended) continue;
    prefetch(requests_[s.request].info);
    __builtin_prefetch(s.output.data() + s.output.size());
    __builtin_prefetch(s.unhashed.data() + s.unhashed.size());
  }
  for (const engine::StepSample& sample : batch.samples) {
    const StepSequence& row = batch.sequences[sample.sequence];
    if (!engine::belongs_to(row.client, Owner::kDecode)) continue;
    row_done(engine::entry_of(row.client), row.position, sample.result, events);
  }
  measure_step(now);
}

void Scheduler::row_done(uint32_t index, uint32_t position, const ops::SampleResult& result,
                         Events& events) {
  Sequence& s = sequences_[index];
  --s.in_flight;
  if (s.ended) {
    if (s.in_flight > 0) return;
    --ending_;
    return remove_sequence(index);
  }
  if (s.copy_from) {
    shared_.pool.unref(*s.copy_from);
    s.copy_from.reset();
  }
  note_computed(s, position);
  events.push_back(Token{requests_[s.request].info.key, s.choice,
                         static_cast<uint32_t>(s.output.size()), result});
  append_token(index, result.token, events);
}

// The KV of the token at `position` is in the cache; a block that is full can be found from now on.
void Scheduler::note_computed(Sequence& s, uint32_t position) {
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  s.unhashed.push_back(s.output[position - requests_[s.request].info.prompt_tokens]);
  if (s.unhashed.size() < block_tokens) return;
  s.chain = shared_.hasher.next(s.chain, s.unhashed);
  shared_.pool.register_hash(s.table[position / block_tokens], s.chain);
  s.unhashed.clear();
}

void Scheduler::measure_step(TimePoint now) {
  if (last_done_)
    step_time_ += (std::min<Duration>(now - *last_done_, seconds(1)) - step_time_) / 8;
  last_done_.reset();
  if (!running_.empty()) last_done_ = now;
}

Snapshot Scheduler::snapshot() const {
  Snapshot s{.running = static_cast<uint32_t>(running_.size()),
             .waiting = line_.size(),
             .ending = ending_,
             .preempted = preempted_};
  for (const uint32_t index : running_) {
    const Sequence& sequence = sequences_[index];
    s.context += requests_[sequence.request].info.prompt_tokens + sequence.output.size();
  }
  for (const auto& [key, index] : by_key_) s.reserved += !requests_[index].running;
  return s;
}

}  // namespace baton::decode
