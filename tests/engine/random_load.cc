#include "tests/engine/random_load.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "common/kvcache/digest.h"

namespace baton::engine {
namespace {

constexpr uint32_t kVocab = 300, kInFlight = 2;

}  // namespace

RandomLoad::RandomLoad(uint32_t seed, const kvcache::KvCache& host, const StepLimits& limits)
    : random_(seed), host_(host), limits_(limits) {
  for (uint32_t b = 2; b < host.num_blocks(); ++b) free_blocks_.push_back(BlockId{b});
  std::shuffle(free_blocks_.begin(), free_blocks_.end(), random_);
  for (uint32_t s = 0; s < limits.max_slots; ++s) free_slots_.push_back(SlotId{s});
}

ops::SamplingParams RandomLoad::random_params() {
  ops::SamplingParams p = {.temperature = chance(3) ? 0.0f : 1.5f, .seed = random_()};
  if (chance(3)) p.top_k = 1 + pick(50);
  if (chance(3)) p.top_p = 0.8f;
  if (chance(3)) p.repetition_penalty = 1.3f;
  if (chance(4)) p.frequency_penalty = 0.7f;
  if (chance(4)) p.min_tokens = pick(6);
  p.want_logprobs = chance(2);
  p.logprobs = p.want_logprobs ? pick(5) : 0;
  return p;
}

bool RandomLoad::admit() {
  Request r;
  r.prompt.resize(1 + pick(chance(4) ? 120 : 40));
  for (TokenId& t : r.prompt) t = static_cast<TokenId>(pick(kVocab));
  r.params = random_params();
  r.max_tokens = 1 + pick(24);
  r.digest = chance(3);
  r.hand_off = r.digest && chance(2);
  r.num_choices = r.hand_off || chance(2) ? 1 : 1 + pick(4);
  if (chance(4)) r.prompt_logprobs = static_cast<int32_t>(pick(4));
  const auto& layout = host_.layout();
  const auto prompt = static_cast<uint32_t>(r.prompt.size());
  const uint32_t whole = layout.blocks_for(prompt + r.max_tokens);
  const uint32_t shared = prompt / layout.block_tokens, own = whole - shared;
  const uint32_t needed = whole + (r.num_choices - 1) * own + (r.hand_off ? whole : 0);
  if (needed > free_blocks_.size()) return false;
  r.owned.assign(free_blocks_.end() - needed, free_blocks_.end());
  free_blocks_.resize(free_blocks_.size() - needed);
  auto next = r.owned.begin();
  const auto take = [&](uint32_t n, std::vector<BlockId>& to) {
    to.insert(to.end(), next, next + n);
    next += n;
  };
  take(whole, r.table);
  r.digests.resize(whole, std::vector<uint64_t>(layout.num_layers()));
  if (r.hand_off) take(whole, r.received);
  for (uint32_t c = 0; c < r.num_choices; ++c) {
    Choice& choice = r.choices.emplace_back();
    choice.table.assign(r.table.begin(), r.table.begin() + (c == 0 ? whole : shared));
    if (c == 0) continue;
    take(own, choice.table);
    choice.forks = prompt % layout.block_tokens != 0;
  }
  requests_.push_back({planned_requests_++, std::move(r)});
  return true;
}

// Slots may be opened by the next step; blocks rest until no step that uses them is in flight.
void RandomLoad::end(Request& request) {
  for (const BlockId b : request.owned) resting_.emplace_back(step_ + kInFlight, b);
  if (request.prefilled == 0) return;
  for (const Choice& c : request.choices) released_slots_.push_back(c.slot);
}

bool RandomLoad::has_room(const StepBatch& batch) const {
  return rows_left_ > 0 && batch.sequences.size() < limits_.max_sequences;
}

void RandomLoad::open(const Request& request, SlotId slot, uint32_t choice,
                      std::vector<TokenId> tokens, StepBatch& batch) const {
  batch.opens.push_back(
      {.slot = slot,
       .params = request.params,
       .logit_bias = {{7, 2.5f}, {11, request.params.min_tokens > 0 ? 8.0f : 0.0f}},
       .banned_until_min = {11, 12},
       .tokens = std::move(tokens),
       .prompt_tokens = static_cast<uint32_t>(request.prompt.size()),
       .choice = choice});
}

void RandomLoad::prefill(Request& request, uint64_t id, StepBatch& batch) {
  if (!has_room(batch)) return;
  const auto prompt = static_cast<uint32_t>(request.prompt.size());
  const uint32_t rows = std::min({1 + pick(32), prompt - request.computed, rows_left_});
  const uint32_t end = request.computed + rows;
  if (end == prompt && free_slots_.size() < request.num_choices) return;
  StepSequence& s = batch.add_sequence();
  s.client = id;
  s.position = request.computed;
  s.num_rows = rows;
  s.tokens.assign(request.prompt.begin() + s.position, request.prompt.begin() + end);
  s.block_table = request.table;
  s.digest = request.digest;
  s.prompt_logprobs = request.prompt_logprobs;
  if (request.prompt_logprobs >= 0) {
    s.next_tokens.assign(request.prompt.begin() + s.position + 1,
                         request.prompt.begin() + std::min(end + 1, prompt));
  }
  rows_left_ -= rows;
  request.computed = end;
  if (end < prompt) return;
  request.prefilled = step_;
  for (uint32_t c = 0; c < request.num_choices; ++c) {
    Choice& choice = request.choices[c];
    choice.slot = free_slots_.back();
    free_slots_.pop_back();
    open(request, choice.slot, c, request.prompt, batch);
    batch.samples.push_back(
        {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = choice.slot});
    targets_.back().push_back({id, c == 0});
    ++choice.drawn;
  }
}

void RandomLoad::decode(Request& request, uint64_t id, StepBatch& batch) {
  const uint32_t block = static_cast<uint32_t>(request.prompt.size()) / host_.layout().block_tokens;
  for (size_t c = 0; c < request.choices.size();) {
    Choice& choice = request.choices[c];
    if (choice.drawn == request.max_tokens) {
      released_slots_.push_back(choice.slot);
      request.choices.erase(request.choices.begin() + static_cast<std::ptrdiff_t>(c));
      continue;
    }
    ++c;
    if (chance(8) || !has_room(batch)) continue;
    if (std::exchange(choice.forks, false)) {
      batch.block_copies.emplace_back(request.table[block], choice.table[block]);
    }
    StepSequence& s = batch.add_sequence();
    s.client = id;
    s.position = static_cast<uint32_t>(request.prompt.size()) + choice.drawn - 1;
    s.num_rows = 1;
    s.last_of = choice.slot;
    s.block_table = choice.table;
    batch.samples.push_back(
        {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = choice.slot});
    targets_.back().push_back({id, false});
    ++choice.drawn;
    --rows_left_;
  }
}

// What was taken out is checked, as a peer that has read it would, and brought in elsewhere.
void RandomLoad::receive(Request& request, uint64_t id, StepBatch& batch) {
  if (step_ < request.prefilled + kInFlight || !has_room(batch)) return;
  const auto& layout = host_.layout();
  const auto prompt = static_cast<uint32_t>(request.prompt.size());
  for (uint32_t b = 0; b < layout.blocks_for(prompt); ++b) {
    const auto from = host_.block(request.table[b]), to = host_.block(request.received[b]);
    const uint32_t position = b * layout.block_tokens;
    const uint32_t tokens = std::min(layout.block_tokens, prompt - position);
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      if (request.digests[b][layer] !=
          kvcache::digest_layer(layout, from.data(), layer, position, tokens)) {
        throw std::runtime_error("a block that does not have its digest");
      }
    }
    std::copy(from.begin(), from.end(), to.begin());
    batch.arrived.push_back(request.received[b]);
  }
  request.hand_off = false;
  Choice& choice = request.choices[0];
  if (choice.drawn == request.max_tokens) return;
  choice.table = request.received;
  std::vector<TokenId> tokens = request.prompt;
  tokens.push_back(request.first_token);
  open(request, choice.slot, 0, tokens, batch);
  StepSequence& s = batch.add_sequence();
  s.client = id;
  s.position = prompt;
  s.num_rows = 1;
  if (chance(2)) {
    s.tokens = {request.first_token};
  } else {
    s.last_of = choice.slot;  // which has been opened with it
  }
  s.block_table = choice.table;
  batch.samples.push_back(
      {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = choice.slot});
  targets_.back().push_back({id, false});
  ++choice.drawn;
  --rows_left_;
}

void RandomLoad::plan(StepBatch& batch) {
  batch.clear();
  ++step_;
  targets_.emplace_back();
  rows_left_ = limits_.max_rows;
  free_slots_.insert(free_slots_.end(), released_slots_.begin(), released_slots_.end());
  released_slots_.clear();
  for (; !resting_.empty() && resting_.front().first <= step_; resting_.pop_front()) {
    free_blocks_.push_back(resting_.front().second);
  }
  while (planned_requests_ < kRequests && requests_.size() < kTogether && !chance(3)) {
    if (!admit()) break;
  }
  for (const bool prefills : {false, true}) {
    for (auto& [id, request] : requests_) {
      if (prefills != (request.computed < request.prompt.size()) || request.prefilled == step_) {
        continue;
      }
      if (prefills) {
        prefill(request, id, batch);
      } else if (request.hand_off) {
        receive(request, id, batch);
      } else {
        decode(request, id, batch);
      }
    }
  }
  for (auto at = requests_.begin(); at != requests_.end();) {
    if (at->request.choices.empty() || chance(50)) {
      end(at->request);
      at = requests_.erase(at);
    } else {
      ++at;
    }
  }
  // A step may have nothing but copies. These blocks are nobody's.
  if (batch.empty()) batch.block_copies.emplace_back(BlockId{0}, BlockId{1});
}

void RandomLoad::done(const StepBatch& batch) {
  const auto find = [&](uint64_t id) -> Request* {
    const auto at = std::find_if(requests_.begin(), requests_.end(),
                                 [&](const Entry& e) { return e.id == id; });
    return at == requests_.end() ? nullptr : &at->request;
  };
  const std::vector<Target> targets = std::move(targets_.front());
  targets_.pop_front();
  for (size_t i = 0; i < targets.size(); ++i) {
    Request* request = find(targets[i].request);
    if (request != nullptr && targets[i].first) {
      request->first_token = batch.samples[i].result.token;
    }
  }
  const auto& layout = host_.layout();
  for (const StepSequence& s : batch.sequences) {
    Request* request = s.digest ? find(s.client) : nullptr;
    if (request == nullptr) continue;
    const uint32_t first = s.position / layout.block_tokens;
    const uint32_t blocks = layout.blocks_for(s.position + s.num_rows) - first;
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      for (uint32_t b = 0; b < blocks; ++b) {
        request->digests[first + b][layer] = s.digests[size_t{layer} * blocks + b];
      }
    }
  }
}

bool same_results(const ops::SampleResult& a, const ops::SampleResult& b) {
  const auto same_bits = [](float x, float y) { return std::memcmp(&x, &y, sizeof(x)) == 0; };
  return a.token == b.token && same_bits(a.logprob, b.logprob) && a.num_top == b.num_top &&
         std::equal(a.top, a.top + a.num_top, b.top, [&](const auto& x, const auto& y) {
           return x.token == y.token && same_bits(x.logprob, y.logprob);
         });
}

bool same_results(const StepResults& a, const StepResults& b) {
  const auto same = [](const std::vector<ops::SampleResult>& x,
                       const std::vector<ops::SampleResult>& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [](const auto& p, const auto& q) { return same_results(p, q); });
  };
  return same(a.samples, b.samples) && a.digests == b.digests && a.layers == b.layers &&
         std::equal(a.scores.begin(), a.scores.end(), b.scores.begin(), b.scores.end(), same);
}

std::vector<StepResults> run_load(Driver& driver, uint32_t seed) {
  RandomLoad load(seed, driver.model().whole_cache(), driver.limits());
  std::array<StepBatch, kInFlight> batches;
  std::vector<StepResults> results;
  uint32_t submitted = 0;
  const auto finish = [&] {
    StepResults& r = results.emplace_back();
    const StepBatch& batch = batches[(results.size() - 1) % kInFlight];
    EngineEvent event = driver.wait();
    for (; event.kind == EngineEvent::Kind::kLayerDone; event = driver.wait()) {
      r.layers.push_back(event.layer);
    }
    if (event.batch != &batch) throw std::runtime_error("a step that ended before its turn");
    load.done(batch);
    for (const StepSample& s : batch.samples) r.samples.push_back(s.result);
    for (const StepSequence& s : batch.sequences) {
      r.scores.push_back(s.scores);
      r.digests.push_back(s.digests);
    }
  };
  for (; !load.finished(); ++submitted) {
    if (submitted - results.size() == kInFlight) finish();
    StepBatch& batch = batches[submitted % kInFlight];
    load.plan(batch);
    if (!driver.engine().submit(&batch)) throw std::runtime_error("submit refused");
  }
  while (results.size() < submitted) finish();
  return results;
}

}  // namespace baton::engine
