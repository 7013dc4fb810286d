#include "prefill/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <tuple>

#include "common/engine/client_mark.h"
#include "prefill/told_layers.h"

namespace baton::prefill {

using engine::Owner;
using engine::StepBatch;
using engine::StepBudget;
using engine::StepSequence;

namespace {

status invalid(std::string what) {
  return error(Errc::kInvalidArgument, "prefill: " + std::move(what));
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config, const Resources& resources)
    : config_(config), shared_(resources) {
  if (config_.chunk_tokens == 0) config_.chunk_tokens = UINT32_MAX;
  assert(config_.chunk_tokens >= shared_.hasher.block_tokens());
}

status Scheduler::check(const PrefillRequest& request) const {
  const engine::Request& r = request.request;
  const uint64_t tokens = r.tokens.size();
  const uint64_t capacity = uint64_t{shared_.pool.size()} * shared_.hasher.block_tokens();
  if (tokens == 0 || r.prompt_tokens == 0 || r.prompt_tokens > tokens) {
    return invalid(fmt::format("{} tokens of which {} are prompt", tokens, r.prompt_tokens));
  }
  if (tokens > config_.limits.max_context || tokens > capacity) {
    return invalid(fmt::format("{} tokens; the context holds {} and the cache {}", tokens,
                               config_.limits.max_context, capacity));
  }
  if (r.sampling.num_choices == 0 || r.sampling.num_choices > shared_.slots.size()) {
    return invalid(fmt::format("{} choices; 1 to {} are possible", r.sampling.num_choices,
                               shared_.slots.size()));
  }
  if (by_key_.contains(r.key)) return invalid("the request is here already");
  return {};
}

status Scheduler::add(PrefillRequest request) {
  BATON_CHECK_OK(check(request));
  // A resumed request was admitted before; refusing it would cost the work done on it.
  const bool resumed = request.request.prompt_tokens < request.request.tokens.size();
  const uint64_t bound = uint64_t{config_.max_queue} * (resumed ? 2 : 1);
  if (waiting_ >= bound) {
    return error(Errc::kResourceExhausted,
                 fmt::format("prefill: {} requests wait already", waiting_));
  }
  Entry entry{.request = std::move(request), .serial = next_serial_++};
  shared_.hasher.block_hashes(entry.common().salt, entry.common().tokens, entry.hashes);
  const RequestKey key = entry.common().key;
  const uint32_t index = entries_.add(std::move(entry));
  by_key_.emplace(key, index);
  order_.insert(std::upper_bound(order_.begin(), order_.end(), index,
                                 [this](uint32_t a, uint32_t b) { return goes_before(a, b); }),
                index);
  ++waiting_;
  return {};
}

bool Scheduler::goes_before(uint32_t a, uint32_t b) const {
  const auto rank = [](const Entry& e) { return std::tuple(e.common().wanted(), e.serial); };
  return rank(entries_[a]) < rank(entries_[b]);
}

void Scheduler::plan(StepBudget& budget, StepBatch& batch, TimePoint now, Events& events) {
  uint32_t room = std::min(budget.rows, config_.chunk_tokens);
  bool blocked = false;  // somebody more urgent waits for room
  for (const uint32_t index : order_) {
    if (room == 0 || budget.sequences == 0) break;
    Entry& entry = entries_[index];
    if (entry.state == State::kWaiting) {
      if (chunk_rows(entry, room) == 0) break;
      blocked = blocked || !start(entry, budget, now, events);
      if (blocked) continue;
    }
    const uint32_t rows = chunk_rows(entry, room);
    if (rows == 0) break;
    append_chunk(index, rows, batch);
    room -= rows;
    budget.rows -= rows;
    --budget.sequences;
  }
  std::erase_if(order_, [this](uint32_t i) { return entries_[i].planned == entries_[i].size(); });
}

bool Scheduler::start(Entry& entry, const StepBudget& budget, TimePoint now, Events& events) {
  const engine::Request& request = entry.common();
  match_prefix(entry);
  const auto matched = static_cast<uint32_t>(entry.table.size());
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  const uint32_t lacking = (entry.size() + block_tokens - 1) / block_tokens - matched;
  const uint32_t slots = entry.request.sample ? request.sampling.num_choices : 0;
  const bool fits = shared_.pool.available() >= uint64_t{lacking} + budget.keep_free_blocks;
  if (!fits || !shared_.slots.allocate(slots, entry.slots)) {
    shared_.pool.release(entry.table);
    entry.table.clear();
    return false;
  }
  shared_.pool.allocate(lacking, entry.table);
  entry.state = State::kRunning;
  entry.cached_tokens = entry.planned = entry.done = matched * block_tokens;
  entry.started = now;
  entry.queued = now - request.arrival;
  --waiting_;
  prompt_tokens_ += entry.size();
  cached_tokens_ += entry.cached_tokens;
  events.push_back(Started{request.key, entry.cached_tokens, entry.queued});
  if (entry.request.hand_off && matched > 0) report_cached(entry, events);
  return true;
}

// At least the last token is computed, for its logits; every token, where all are scored. What is
// to be handed off needs its digests.
void Scheduler::match_prefix(Entry& entry) {
  if (entry.request.prompt_logprobs >= 0) return;
  const size_t most = (entry.size() - 1) / shared_.hasher.block_tokens();
  std::vector<BlockId>& table = entry.table;
  shared_.pool.match_prefix(std::span(entry.hashes).first(most), table);
  if (!entry.request.hand_off) return;
  const auto lacks_digest = [this](BlockId b) {
    return !shared_.digests.complete(b, shared_.pool.generation(b));
  };
  const auto usable = std::find_if(table.begin(), table.end(), lacks_digest);
  // Read or decoded here in another role: what is computed now is to be found in its place.
  for (auto b = usable; b != table.end(); ++b) shared_.pool.forget(*b);
  shared_.pool.release({usable, table.end()});
  table.erase(usable, table.end());
}

void Scheduler::report_cached(Entry& entry, Events& events) {
  const size_t blocks = entry.cached_tokens / shared_.hasher.block_tokens();
  const uint32_t layers = shared_.digests.num_layers();
  entry.cached_digests.resize(layers * blocks);
  for (size_t b = 0; b < blocks; ++b) {
    const std::span<const uint64_t> of_block = shared_.digests.layers(entry.table[b]);
    for (uint32_t l = 0; l < layers; ++l) entry.cached_digests[l * blocks + b] = of_block[l];
  }
  events.push_back(LayersReady{.key = entry.common().key,
                               .layer_end = layers,
                               .blocks = std::span(entry.table).first(blocks),
                               .digests = entry.cached_digests});
}

uint32_t Scheduler::chunk_rows(const Entry& entry, uint32_t room) const {
  const uint32_t left = entry.size() - entry.planned;
  if (left <= room) return left;
  return room - room % shared_.hasher.block_tokens();  // planned is on a block boundary
}

void Scheduler::append_chunk(uint32_t index, uint32_t rows, StepBatch& batch) {
  Entry& entry = entries_[index];
  const std::vector<TokenId>& tokens = entry.common().tokens;
  const uint32_t begin = entry.planned, end = begin + rows;
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  StepSequence& s = batch.add_sequence();
  s.request = entry.common().key.request;
  s.position = begin;
  s.num_rows = rows;
  s.tokens.assign(tokens.begin() + begin, tokens.begin() + end);
  s.block_table.assign(entry.table.begin(),
                       entry.table.begin() + (end + block_tokens - 1) / block_tokens);
  s.digest = entry.request.hand_off || config_.always_digest;
  s.prompt_logprobs = entry.request.prompt_logprobs;
  if (s.prompt_logprobs >= 0) {
    s.next_tokens.assign(tokens.begin() + begin + 1,
                         tokens.begin() + std::min(end + 1, entry.size()));
    s.next_tokens.resize(rows);  // nothing stands after the last token; its score is dropped
  }
  s.client = engine::client_mark(Owner::kPrefill, index);
  if (s.digest) tell_layers(entry.request.hand_off && end == entry.size(), batch);
  entry.planned = end;
  ++entry.in_flight;
  if (end == entry.size()) {
    append_samples(entry, static_cast<uint32_t>(batch.sequences.size() - 1), batch);
  }
}

void Scheduler::append_samples(const Entry& entry, uint32_t sequence, StepBatch& batch) const {
  const engine::Request& request = entry.common();
  for (uint32_t i = 0; i < entry.slots.size(); ++i) {
    batch.opens.push_back(engine::open_slot(entry.slots[i], request, request.tokens,
                                            request.sampling.first_choice + i));
    batch.samples.push_back({.sequence = sequence, .slot = entry.slots[i]});
  }
}

// What a chunk wrote is read while the next one is computed.
void Scheduler::tell_layers(bool last_chunk, StepBatch& batch) const {
  const uint32_t layers = shared_.digests.num_layers();
  if (!last_chunk) {
    if (batch.told_layers.empty()) batch.told_layers = {layers - 1};
    return;
  }
  uint64_t rows = 0;
  for (const StepSequence& s : batch.sequences) rows += s.digest ? s.num_rows : 0;
  tell_in_last_chunk(layers, rows * config_.layer_token_bytes, batch.told_layers);
}

void Scheduler::on_layer(const StepBatch& batch, uint32_t layer, Events& events) {
  const auto told = std::ranges::lower_bound(batch.told_layers, layer);
  if (told == batch.told_layers.end() || *told != layer) return;
  const uint32_t begin = told == batch.told_layers.begin() ? 0 : *std::prev(told) + 1;
  for (const StepSequence& s : batch.sequences) {
    if (!engine::belongs_to(s.client, Owner::kPrefill)) continue;
    const Entry& entry = entries_[engine::entry_of(s.client)];
    if (entry.state == State::kGone || !entry.request.hand_off) continue;
    const uint32_t first = s.position / shared_.hasher.block_tokens();
    const size_t blocks = s.block_table.size() - first;
    events.push_back(LayersReady{
        .key = entry.common().key,
        .layer_begin = begin,
        .layer_end = layer + 1,
        .first_block = first,
        .blocks = std::span(entry.table).subspan(first, blocks),
        .digests = std::span(s.digests).subspan(begin * blocks, (layer + 1 - begin) * blocks)});
  }
}

void Scheduler::on_step_done(const StepBatch& batch, TimePoint now, Events& events) {
  for (uint32_t i = 0; i < batch.sequences.size(); ++i) {
    const StepSequence& s = batch.sequences[i];
    if (!engine::belongs_to(s.client, Owner::kPrefill)) continue;
    const uint32_t index = engine::entry_of(s.client);
    Entry& entry = entries_[index];
    --entry.in_flight;
    if (entry.state == State::kGone) {
      if (entry.in_flight == 0) remove(index);
      continue;
    }
    chunk_done(entry, s, events);
    if (entry.done == entry.size()) prompt_done(entry, batch, i, now, events);
  }
}

void Scheduler::chunk_done(Entry& entry, const StepSequence& chunk, Events& events) {
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  entry.done = chunk.position + chunk.num_rows;
  if (chunk.digest) note_digests(entry, chunk);
  const uint32_t first = chunk.position / block_tokens, count = entry.done / block_tokens - first;
  shared_.pool.register_hashes(std::span(entry.table).subspan(first, count),
                               std::span(entry.hashes).subspan(first, count));
  entry.scores.insert(entry.scores.end(), chunk.scores.begin(), chunk.scores.end());
  events.push_back(ChunkDone{entry.common().key, chunk.position, entry.done});
}

void Scheduler::note_digests(const Entry& entry, const StepSequence& chunk) {
  const uint32_t first = chunk.position / shared_.hasher.block_tokens();
  const size_t touched = chunk.block_table.size() - first;
  const size_t full = entry.done / shared_.hasher.block_tokens() - first;
  for (size_t b = 0; b < full; ++b) {
    const BlockId block = entry.table[first + b];
    for (uint32_t layer = 0; layer < shared_.digests.num_layers(); ++layer) {
      shared_.digests.set(block, shared_.pool.generation(block), layer,
                          chunk.digests[layer * touched + b]);
    }
  }
}

void Scheduler::prompt_done(Entry& entry, const StepBatch& batch, uint32_t sequence, TimePoint now,
                            Events& events) {
  entry.state = State::kHeld;
  PromptDone done{.key = entry.common().key,
                  .cached_tokens = entry.cached_tokens,
                  .queued = entry.queued,
                  .computed = now - entry.started};
  uint32_t choice = entry.common().sampling.first_choice;
  for (const engine::StepSample& sample : batch.samples) {
    if (sample.sequence == sequence) done.first_tokens.push_back({choice++, sample.result});
  }
  if (!entry.scores.empty()) {
    entry.scores.pop_back();
    done.prompt_scores = std::move(entry.scores);
  }
  for (const FirstToken& first : done.first_tokens)
    entry.first_tokens.push_back(first.result.token);
  if (entry.request.hand_off) {  // the other worker opens its own
    shared_.slots.release(entry.slots);
    entry.slots.clear();
  }
  events.push_back(std::move(done));
}

std::optional<uint32_t> Scheduler::find_held(const RequestKey& key) const {
  const auto it = by_key_.find(key);
  if (it == by_key_.end() || entries_[it->second].state != State::kHeld) return std::nullopt;
  return it->second;
}

status Scheduler::cancel(const RequestKey& key) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return error(Errc::kNotFound, "prefill: no such request");
  end(it->second);
  return {};
}

void Scheduler::rename(const RequestKey& from, const RequestKey& to) {
  auto node = by_key_.extract(from);
  if (node.empty()) return;
  entries_[node.mapped()].request.request.key = to;
  node.key() = to;
  by_key_.insert(std::move(node));
}

result<engine::HandOver> Scheduler::take(const RequestKey& key) {
  const std::optional<uint32_t> index = find_held(key);
  if (!index || entries_[*index].slots.empty()) {
    return error(Errc::kNotFound, "prefill: no such prompt to be decoded here");
  }
  Entry& entry = entries_[*index];
  engine::HandOver over;
  over.chain =
      entry.hashes.empty() ? shared_.hasher.root(entry.common().salt) : entry.hashes.back();
  over.request = std::move(entry.request.request);
  over.table = std::move(entry.table);
  over.slots = std::move(entry.slots);
  over.first_tokens = std::move(entry.first_tokens);
  by_key_.erase(key);
  entries_.remove(*index);
  return over;
}

status Scheduler::release(const RequestKey& key) {
  const std::optional<uint32_t> index = find_held(key);
  if (!index) return error(Errc::kNotFound, "prefill: no such computed prompt");
  end(*index);
  return {};
}

// What steps in flight still compute is not registered, since the entry is gone.
status Scheduler::cancel_doubtful(const RequestKey& key, uint32_t first_doubtful) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return error(Errc::kNotFound, "prefill: no such request");
  const std::vector<BlockId>& table = entries_[it->second].table;
  for (size_t b = first_doubtful / shared_.hasher.block_tokens(); b < table.size(); ++b) {
    shared_.pool.forget(table[b]);
  }
  end(it->second);
  return {};
}

void Scheduler::expire(TimePoint now, Events& events) {
  std::vector<uint32_t> late;
  for (const auto& [key, index] : by_key_) {
    const Entry& entry = entries_[index];
    if (entry.state != State::kHeld && entry.common().deadline <= now) late.push_back(index);
  }
  for (const uint32_t index : late) {
    events.push_back(Expired{entries_[index].common().key});
    end(index);
  }
}

void Scheduler::end(uint32_t index) {
  Entry& entry = entries_[index];
  if (entry.state == State::kWaiting) --waiting_;
  entry.state = State::kGone;
  by_key_.erase(entry.common().key);
  std::erase(order_, index);
  if (entry.in_flight == 0) remove(index);
}

void Scheduler::remove(uint32_t index) {
  const Entry& entry = entries_[index];
  shared_.pool.release(entry.table);
  shared_.slots.release(entry.slots);
  entries_.remove(index);
}

Duration Scheduler::queued_time(const latency::StepCosts& costs) const {
  Duration sum{};
  for (const auto& [key, index] : by_key_) {
    const Entry& entry = entries_[index];
    const uint32_t left = entry.size() - entry.done;
    sum += latency::prompt_time(costs, left, entry.done, config_.chunk_tokens);
  }
  return sum;
}

Snapshot Scheduler::snapshot() const {
  Snapshot s{.waiting = waiting_, .prompt_tokens = prompt_tokens_, .cached_tokens = cached_tokens_};
  for (const auto& [key, index] : by_key_) {
    const Entry& entry = entries_[index];
    s.queued_tokens += entry.size() - entry.planned;
    if (entry.state == State::kRunning) ++s.running;
    if (entry.state != State::kHeld) continue;
    ++s.held;
    s.held_blocks += static_cast<uint32_t>(entry.table.size());
  }
  return s;
}

}  // namespace baton::prefill
