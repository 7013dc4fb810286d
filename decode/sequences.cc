#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "decode/scheduler.h"

namespace baton::decode {

status Scheduler::join(const RequestKey& key, std::span<const TokenId> first_tokens,
                       Events& events) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end() || requests_[it->second].running) {
    return error(Errc::kNotFound, "decode: no such reservation");
  }
  RequestEntry& entry = requests_[it->second];
  if (first_tokens.size() != entry.slots.size()) {
    return error(Errc::kInvalidArgument, "decode: not one first token for each choice");
  }
  // They come from another worker, and index the embedding.
  for (const TokenId token : first_tokens) {
    if (token >= 0 && static_cast<uint32_t>(token) < config_.vocab_size) continue;
    return error(Errc::kInvalidArgument,
                 fmt::format("decode: first token {} is outside the vocabulary of {}", token,
                             config_.vocab_size));
  }
  shared_.pool.register_hashes(std::span(entry.table).first(entry.hashes.size()), entry.hashes);
  awaited_sequences_ -= static_cast<uint32_t>(entry.slots.size());
  arrived_.insert(arrived_.end(), entry.table.begin() + entry.first_lacking_block,
                  entry.table.end());
  engine::HandOver over;
  over.table = std::move(entry.table);
  over.chain = entry.hashes.empty() ? shared_.hasher.root(entry.info.salt) : entry.hashes.back();
  over.slots = std::move(entry.slots);
  over.first_tokens.assign(first_tokens.begin(), first_tokens.end());
  const std::vector<uint32_t> dropped = std::move(entry.dropped_choices);
  fork(it->second, std::move(over), /*opened=*/false, events);
  for (const uint32_t choice : dropped) (void)cancel_choice(key, choice);  // or it has finished
  return {};
}

status Scheduler::adopt(engine::HandOver over, Events& events) {
  if (by_key_.contains(over.request.key)) {
    shared_.pool.release(over.table);
    shared_.slots.release(over.slots);
    return error(Errc::kInvalidArgument, "decode: the request is here already");
  }
  RequestEntry entry{.info = std::move(over.request), .serial = next_serial_++};
  entry.limit = limit_of(entry.info);
  const RequestKey key = entry.info.key;
  const uint32_t index = requests_.add(std::move(entry));
  by_key_.emplace(key, index);
  fork(index, std::move(over), /*opened=*/true, events);
  return {};
}

// One sequence for each choice. All share the prompt's full blocks; the first gets the partial one,
// the others copy it with their first row.
void Scheduler::fork(uint32_t request, engine::HandOver over, bool opened, Events& events) {
  RequestEntry& entry = requests_[request];
  const uint32_t full = entry.info.num_tokens() / shared_.hasher.block_tokens();
  const bool partial = over.table.size() > full;
  std::vector<uint32_t> forked;
  for (uint32_t i = 0; i < over.slots.size(); ++i) {
    Sequence s = make_sequence(request, over.chain);
    s.choice = entry.info.sampling.first_choice + i;
    s.slot = over.slots[i];
    s.opened = opened;
    const bool first = i == 0;
    if (!first) {
      for (const BlockId block : over.table) shared_.pool.ref(block);
      if (partial) s.copy_from = over.table.back();
    }
    s.table.assign(over.table.begin(), over.table.begin() + (first ? over.table.size() : full));
    forked.push_back(sequences_.add(std::move(s)));
  }
  entry.running = true;
  entry.sequences = forked;
  for (const uint32_t index : forked) start(index);
  for (size_t i = 0; i < forked.size(); ++i) append_token(forked[i], over.first_tokens[i], events);
}

Scheduler::Sequence Scheduler::make_sequence(uint32_t request,
                                             const kvcache::PrefixHash& chain) const {
  const RequestEntry& entry = requests_[request];
  const std::vector<TokenId>& tokens = entry.info.tokens;
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  Sequence s{.request = request, .chain = chain, .planned = entry.info.num_tokens()};
  // All the memory it will ever need.
  s.table.reserve(entry.limit / block_tokens + 1);
  s.output.reserve(entry.limit - entry.info.prompt_tokens);
  s.output.assign(tokens.begin() + entry.info.prompt_tokens, tokens.end());
  s.unhashed.reserve(block_tokens);
  s.unhashed.assign(tokens.end() - tokens.size() % block_tokens, tokens.end());
  return s;
}

bool Scheduler::goes_before(uint32_t a, uint32_t b) const {
  const auto rank = [this](const Sequence& s) {
    const RequestEntry& entry = requests_[s.request];
    return std::tuple(entry.info.priority, entry.info.arrival, entry.serial, s.choice);
  };
  return rank(sequences_[a]) < rank(sequences_[b]);
}

void Scheduler::start(uint32_t index) {
  const auto before = [this](uint32_t a, uint32_t b) { return goes_before(a, b); };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), index, before), index);
}

// The output's next token is known; it may be the last.
void Scheduler::append_token(uint32_t index, TokenId token, Events& events) {
  Sequence& s = sequences_[index];
  const RequestEntry& entry = requests_[s.request];
  s.output.push_back(token);
  const auto count = static_cast<uint32_t>(s.output.size());
  std::optional<engine::Finish> finish = engine::finish_of(entry.info.sampling, count - 1, token);
  if (!finish && entry.info.prompt_tokens + count >= entry.limit) finish.emplace();
  if (!finish) return;
  events.push_back(Finished{entry.info.key, s.choice, *finish, count});
  end_sequence(index);
}

void Scheduler::preempt_sequence(uint32_t index, Events& events) {
  Sequence& s = sequences_[index];
  events.push_back(Preempted{requests_[s.request].info.key, s.choice, std::move(s.output)});
  ++preempted_;
  end_sequence(index);
}

void Scheduler::end_sequence(uint32_t index) {
  Sequence& s = sequences_[index];
  RequestEntry& entry = requests_[s.request];
  std::erase(running_, index);
  std::erase(entry.sequences, index);
  if (entry.sequences.empty()) {
    by_key_.erase(entry.info.key);
    requests_.remove(s.request);
  }
  shared_.slots.release(s.slot);
  s.ended = true;
  if (s.in_flight == 0) {
    remove_sequence(index);
  } else {
    ++ending_;
  }
}

void Scheduler::remove_sequence(uint32_t index) {
  const Sequence& s = sequences_[index];
  if (s.copy_from) shared_.pool.unref(*s.copy_from);
  shared_.pool.release(s.table);
  sequences_.remove(index);
}

void Scheduler::end_request(uint32_t index) {
  if (!requests_[index].running) return end_reservation(index);
  const std::vector<uint32_t> sequences = requests_[index].sequences;
  for (const uint32_t s : sequences) end_sequence(s);
}

void Scheduler::end_reservation(uint32_t index) {
  const RequestEntry& entry = requests_[index];
  const std::span table(entry.table);
  for (const BlockId block : table.subspan(entry.first_lacking_block)) {
    shared_.pool.quarantine(block);
  }
  shared_.pool.release(table.first(entry.first_lacking_block));
  shared_.slots.release(entry.slots);
  awaited_sequences_ -= static_cast<uint32_t>(entry.slots.size());
  by_key_.erase(entry.info.key);
  requests_.remove(index);
}

status Scheduler::cancel(const RequestKey& key) {
  if (line_.remove(key)) {
    too_little_.reset();
    return {};
  }
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return error(Errc::kNotFound, "decode: no such request");
  end_request(it->second);
  return {};
}

status Scheduler::cancel_choice(const RequestKey& key, uint32_t choice) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return error(Errc::kNotFound, "decode: no such request");
  RequestEntry& entry = requests_[it->second];
  if (!entry.running) {
    std::vector<uint32_t>& dropped = entry.dropped_choices;
    const engine::Sampling& sampling = entry.info.sampling;
    const bool its_own = choice - sampling.first_choice < sampling.num_choices;  // wraps below
    if (its_own && std::ranges::find(dropped, choice) == dropped.end()) dropped.push_back(choice);
    return {};
  }
  for (const uint32_t index : entry.sequences) {
    if (sequences_[index].choice != choice) continue;
    end_sequence(index);
    return {};
  }
  return error(Errc::kNotFound, "decode: no such choice");
}

void Scheduler::expire(TimePoint now, Events& events) {
  std::vector<uint32_t> late;
  for (const auto& [key, index] : by_key_) {
    if (requests_[index].info.deadline <= now) late.push_back(index);
  }
  for (const uint32_t index : late) {
    events.push_back(Expired{requests_[index].info.key, !requests_[index].running});
    end_request(index);
  }
  line_.expire(now, events);
  too_little_.reset();
}

status Scheduler::preempt(const RequestKey& key, Events& events) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end() || !requests_[it->second].running) {
    return error(Errc::kNotFound, "decode: no such running request");
  }
  const std::vector<uint32_t> sequences = requests_[it->second].sequences;
  for (const uint32_t index : sequences) preempt_sequence(index, events);
  return {};
}

}  // namespace baton::decode
