#include <fmt/format.h>

#include <algorithm>

#include "decode/scheduler.h"

namespace baton::decode {
namespace {

constexpr Duration kLongestRetry = seconds(30);

Error invalid(std::string what) {
  return error(Errc::kInvalidArgument, "decode: " + std::move(what));
}

}  // namespace

uint32_t Scheduler::limit_of(const engine::Request& request) const {
  const uint64_t asked = uint64_t{request.prompt_tokens} + request.sampling.max_tokens;
  // The last token drawn needs no KV.
  const uint64_t fits = uint64_t{shared_.pool.size()} * shared_.hasher.block_tokens() + 1;
  return static_cast<uint32_t>(std::min({asked, uint64_t{config_.limits.max_context}, fits}));
}

// Whether it could be served if it were alone. Returns its limit.
result<uint32_t> Scheduler::check(const DecodeRequest& request) const {
  const engine::Request& r = request.request;
  const uint32_t limit = limit_of(r);
  if (r.prompt_tokens == 0 || r.prompt_tokens > r.tokens.size()) {
    return invalid(
        fmt::format("{} tokens of which {} are prompt", r.tokens.size(), r.prompt_tokens));
  }
  if (r.tokens.size() >= limit) {
    return invalid(fmt::format("{} tokens leave no room for another; {} are possible in all",
                               r.tokens.size(), limit));
  }
  const uint32_t most = std::min(shared_.slots.size(), config_.limits.max_sequences);
  if (r.sampling.num_choices == 0 || r.sampling.num_choices > most) {
    return invalid(fmt::format("{} choices; 1 to {} are possible", r.sampling.num_choices, most));
  }
  if (request.granule_tokens == 0) return invalid("a granule of 0 tokens");
  if (by_key_.contains(r.key) || line_.contains(r.key))
    return invalid("the request is here already");
  return limit;
}

result<Reservation> Scheduler::reserve(DecodeRequest request) {
  BATON_TRY(const uint32_t limit, check(request));
  RequestEntry entry{.serial = next_serial_, .limit = limit};
  const uint32_t choices = request.request.sampling.num_choices;
  const uint32_t lacking = match_prefix(request, entry);
  if (!line_.goes_behind(request.request) && has_room(lacking, choices)) {
    return Reservation{admit(std::move(request.request), std::move(entry), lacking)};
  }
  shared_.pool.release(entry.table);
  const uint64_t ahead = line_.tokens() / shared_.hasher.block_tokens() + line_.size();
  const Duration estimate = retry_after(lacking + ahead, choices + line_.choices());
  if (!request.may_wait || line_.size() >= config_.max_waiting) {
    return Reservation{Full{estimate}};
  }
  line_.add(std::move(request), next_serial_++);
  too_little_.reset();  // the first may be another
  return Reservation{Waiting{estimate}};
}

void Scheduler::admit_waiting(Events& events) {
  while (!line_.empty()) {
    const Free free{shared_.pool.available(), free_sequences()};
    if (too_little_ && free.blocks <= too_little_->blocks &&
        free.sequences <= too_little_->sequences) {
      return;
    }
    const DecodeRequest& first = line_.first();
    RequestEntry entry{.serial = next_serial_, .limit = limit_of(first.request)};
    const uint32_t lacking = match_prefix(first, entry);
    if (!has_room(lacking, first.request.sampling.num_choices)) {
      shared_.pool.release(entry.table);
      too_little_ = free;
      return;
    }
    too_little_.reset();
    engine::Request request = line_.take_first().request;
    const RequestKey key = request.key;
    events.push_back(Admitted{key, admit(std::move(request), std::move(entry), lacking)});
  }
}

// There is room.
Granted Scheduler::admit(engine::Request request, RequestEntry entry, uint32_t lacking_blocks) {
  const uint32_t choices = request.sampling.num_choices;
  shared_.pool.allocate(lacking_blocks, entry.table);
  shared_.slots.allocate(choices, entry.slots);
  ++next_serial_;
  awaited_sequences_ += choices;
  Granted granted{entry.table, entry.first_lacking_block};
  entry.info = std::move(request);
  const RequestKey key = entry.info.key;
  by_key_.emplace(key, requests_.add(std::move(entry)));
  return granted;
}

// Takes what the prefix cache holds, in whole granules. Returns the number of blocks lacking.
uint32_t Scheduler::match_prefix(const DecodeRequest& request, RequestEntry& entry) {
  const uint32_t block_tokens = shared_.hasher.block_tokens();
  const uint32_t tokens = request.request.num_tokens();
  shared_.hasher.block_hashes(request.request.salt, request.request.tokens, entry.hashes);
  uint32_t matched = shared_.pool.match_prefix(entry.hashes, entry.table);
  while (matched * block_tokens != tokens && matched * block_tokens % request.granule_tokens != 0) {
    shared_.pool.unref(entry.table.back());
    entry.table.pop_back();
    --matched;
  }
  entry.first_lacking_block = matched;
  return (tokens + block_tokens - 1) / block_tokens - matched;
}

uint32_t Scheduler::free_sequences() const {
  const auto taken = static_cast<uint32_t>(running_.size()) + awaited_sequences_;
  const uint32_t most = config_.limits.max_sequences;
  return std::min(shared_.slots.available(), most > taken ? most - taken : 0);
}

bool Scheduler::has_room(uint32_t lacking_blocks, uint32_t choices) const {
  return choices <= free_sequences() &&
         uint64_t{lacking_blocks} + growth_margin(choices) <= shared_.pool.available();
}

// Blocks to keep free, with so many sequences more than there are. An idle worker keeps none: who
// fits alone must be served.
uint32_t Scheduler::growth_margin(uint32_t more_sequences) const {
  const auto sequences = static_cast<uint32_t>(running_.size() + awaited_sequences_);
  if (sequences == 0) return 0;
  return config_.watermark_blocks + config_.growth_blocks * (sequences + more_sequences);
}

// When enough of the running sequences will have reached their limits, at the present pace. They
// may stop earlier; what is shared or cached is not seen.
Duration Scheduler::retry_after(uint64_t lacking_blocks, uint32_t choices) const {
  std::vector<std::pair<uint32_t, uint32_t>> ends;  // {steps left, blocks it gives back}
  for (const uint32_t index : running_) {
    const Sequence& s = sequences_[index];
    ends.emplace_back(requests_[s.request].limit - s.planned,
                      static_cast<uint32_t>(s.table.size()));
  }
  std::sort(ends.begin(), ends.end());
  const uint64_t wanted = lacking_blocks + growth_margin(choices);
  uint64_t blocks = shared_.pool.available();
  uint64_t sequences = free_sequences();
  uint64_t steps = 1;
  for (const auto& [left, freed] : ends) {
    if (blocks >= wanted && sequences >= choices) break;
    steps = std::max<uint64_t>(left, 1);
    blocks += freed;
    ++sequences;
  }
  return std::min(kLongestRetry, step_time_ * static_cast<int64_t>(steps));
}

}  // namespace baton::decode
