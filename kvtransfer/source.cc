#include "kvtransfer/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace baton::kvtransfer {
namespace {

Error unknown(const HandoffKey& key) {
  return error(Errc::kNotFound, fmt::format("no hand-off {} as the source", to_string(key)));
}

}  // namespace

Source::Source(SourceConfig config) : config_(std::move(config)), ended_(config_.max_ended) {}

// --- from the service ---------------------------------------------------------------------------

status Source::begin(const SourceBegin& begin, TimePoint now, SourceActions& actions) {
  if (begin.num_tokens == 0 || begin.num_tokens > kMaxTokens) {
    return error(Errc::kInvalidArgument,
                 fmt::format("hand-off {}: {} tokens", to_string(begin.key), begin.num_tokens));
  }
  if (handoffs_.size() >= config_.max_handoffs) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} hand-offs are open already", handoffs_.size()));
  }
  if (ended_.contains(begin.key)) {
    return error(Errc::kInvalidArgument,
                 fmt::format("hand-off {} has ended already", to_string(begin.key)));
  }
  const uint32_t blocks = config_.layout.blocks_for(begin.num_tokens);
  if (!begin.granted && num_waiting_ > 0 && waiting_blocks_ + blocks > config_.max_parked_blocks) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} blocks wait for decode workers already", waiting_blocks_));
  }
  const Request request{begin.key.router, begin.key.request};
  if (const auto it = newest_.find(request); it != newest_.end()) {
    if (it->second >= begin.key.generation) {
      return error(Errc::kInvalidArgument, fmt::format("hand-off {}: generation {} is open already",
                                                       to_string(begin.key), it->second.value));
    }
    fail_and_tell({begin.key.router, begin.key.request, it->second},
                  error(Errc::kAborted, "a newer generation began"), AbortReason::kSuperseded,
                  actions);
  }
  newest_[request] = begin.key.generation;
  Handoff& h = handoffs_[begin.key];
  h.info = begin;
  h.digests.resize(config_.layout.num_layers());
  h.timings.begun = now;
  ++stats_.begun;
  count_waiting(h);
  set_timer(h);
  take_early_credit(h, now, actions);
  return {};
}

status Source::check_done(const Handoff& h, const LayersDone& done) const {
  const auto bad = [&h](std::string_view what) {
    return error(Errc::kInvalidArgument,
                 fmt::format("hand-off {}: layers done: {}", to_string(h.info.key), what));
  };
  if (h.timings.finished != TimePoint{}) return bad("after finished");
  if (done.layer_begin >= done.layer_end || done.layer_end > config_.layout.num_layers()) {
    return bad("no such layers");
  }
  const size_t blocks = done.blocks.size();
  if (blocks == 0 || done.first_block + blocks > num_blocks(h)) return bad("no such blocks");
  if (done.digests.size() != blocks * (done.layer_end - done.layer_begin)) {
    return bad("not one digest for each layer and block");
  }
  for (uint32_t layer = done.layer_begin; layer < done.layer_end; ++layer) {
    if (h.digests[layer].size() != done.first_block) return bad("out of order");
  }
  for (size_t i = done.first_block; i < std::min(h.blocks.size(), done.first_block + blocks); ++i) {
    if (h.blocks[i] != done.blocks[i - done.first_block]) return bad("another block than before");
  }
  return {};
}

status Source::layers_done(const HandoffKey& key, const LayersDone& done, TimePoint,
                           SourceActions& actions) {
  const auto it = handoffs_.find(key);
  if (it == handoffs_.end()) return unknown(key);
  Handoff& h = it->second;
  BATON_CHECK_OK(check_done(h, done));
  for (size_t i = h.blocks.size(); i < done.first_block + done.blocks.size(); ++i) {
    h.blocks.push_back(done.blocks[i - done.first_block]);
  }
  for (uint32_t layer = done.layer_begin; layer < done.layer_end; ++layer) {
    const auto row =
        done.digests.subspan((layer - done.layer_begin) * done.blocks.size(), done.blocks.size());
    h.digests[layer].insert(h.digests[layer].end(), row.begin(), row.end());
  }
  if (h.state != State::kStreaming) return {};
  if (all_done(h)) {
    announce_new(h, actions);
  } else {
    ready_.insert(key);
  }
  return {};
}

void Source::announce_ready(SourceActions& actions) {
  for (const HandoffKey& key : std::exchange(ready_, {})) {
    const auto it = handoffs_.find(key);
    if (it == handoffs_.end() || it->second.state != State::kStreaming) continue;
    announce_new(it->second, actions);
  }
}

bool Source::all_done(const Handoff& h) const {
  return std::ranges::all_of(h.digests,
                             [&](const auto& column) { return column.size() == num_blocks(h); });
}

status Source::finished(const HandoffKey& key, std::span<const TokenId> first_tokens, TimePoint now,
                        SourceActions& actions) {
  const auto it = handoffs_.find(key);
  if (it == handoffs_.end()) return unknown(key);
  Handoff& h = it->second;
  if (!all_done(h) || h.timings.finished != TimePoint{} || first_tokens.empty() ||
      first_tokens.size() > kMaxFirstTokens) {
    return error(Errc::kInvalidArgument,
                 fmt::format("hand-off {}: finished twice, too early, or with {} first tokens",
                             to_string(key), first_tokens.size()));
  }
  h.first_tokens.assign(first_tokens.begin(), first_tokens.end());
  h.timings.finished = now;
  if (h.state == State::kStreaming) {
    h.state = State::kCommitted;
    commit(h, actions);
  } else {
    park(h, now);
  }
  return {};
}

status Source::abort(const HandoffKey& key, AbortReason reason, TimePoint, SourceActions& actions) {
  if (!handoffs_.contains(key)) return unknown(key);
  fail_and_tell(key, error(Errc::kCancelled, std::string(name(reason))), reason, actions);
  return {};
}

status Source::retarget(const HandoffKey& key, Generation generation, WorkerId sink, TimePoint now,
                        SourceActions& actions) {
  if (!handoffs_.contains(key)) return unknown(key);
  if (generation <= key.generation) {
    return error(Errc::kInvalidArgument, fmt::format("hand-off {}: generation {} is not newer",
                                                     to_string(key), generation.value));
  }
  if (credited(handoffs_[key])) {
    send(handoffs_[key].info.sink, Abort{key, true, AbortReason::kSuperseded}, actions);
    uncredit(handoffs_[key], now);
  }
  timers_.erase(key);
  ended_.add(key);
  auto node = handoffs_.extract(key);
  node.key().generation = generation;
  newest_[{key.router, key.request}] = generation;
  Handoff& h = handoffs_.insert(std::move(node)).position->second;
  h.info.key.generation = generation;
  h.info.sink = sink;
  h.info.granted = true;
  h.sink_lost = false;
  count_waiting(h);
  if (h.state == State::kParked) h.park_until = now + config_.park_timeout;
  set_timer(h);
  take_early_credit(h, now, actions);
  return {};
}

// --- timers -------------------------------------------------------------------------------------

void Source::tick(TimePoint now, SourceActions& actions) {
  for (HandoffKey key; timers_.pop_due(now, key);) on_timer(key, now, actions);
  if (next_renewal_ <= now) renew(now, actions);
}

TimePoint Source::next_deadline() const { return std::min(timers_.next(), next_renewal_); }

// The earliest time at which this hand-off, left alone, changes.
void Source::set_timer(const Handoff& h) {
  TimePoint when = h.info.deadline;
  if (credited(h)) when = std::min(when, h.heard + h.credit.lease);
  if (h.state == State::kParked) when = std::min(when, h.park_until);
  timers_.set(h.info.key, when);
}

void Source::on_timer(const HandoffKey& key, TimePoint now, SourceActions& actions) {
  Handoff& h = handoffs_.at(key);
  if (now >= h.info.deadline) {
    fail_and_tell(key, error(Errc::kDeadlineExceeded, "the request's deadline passed"),
                  AbortReason::kDeadline, actions);
  } else if (h.state == State::kParked && now >= h.park_until) {
    fail_and_tell(key, error(Errc::kDeadlineExceeded, "parked, and no decode worker had room"),
                  AbortReason::kDeadline, actions);
  } else if (credited(h) && now >= h.heard + h.credit.lease) {
    const Error silent = error(Errc::kDeadlineExceeded, "the decode worker's lease ended");
    ++stats_.leases_ended;
    if (h.state == State::kCommitted) {
      fail_and_tell(key, silent, AbortReason::kDeadline, actions);
    } else {
      send(h.info.sink, Abort{key, true, AbortReason::kDeadline}, actions);
      lose_sink(h, silent, now, actions);
    }
  } else {
    set_timer(h);  // it was heard of since
  }
}

// Tells each sink that its hand-offs live on, and repeats commits that nobody acknowledged.
void Source::renew(TimePoint now, SourceActions& actions) {
  end_early_credits(now, actions);
  std::map<WorkerId, std::vector<HandoffKey>> alive;
  for (auto& [key, early] : early_) alive[early.from].push_back(key);
  for (auto& [key, h] : handoffs_) {
    if (h.state == State::kStreaming) alive[h.info.sink].push_back(key);
    if (h.state == State::kCommitted) {
      ++stats_.commits_repeated;
      commit(h, actions);
    }
  }
  for (auto& [worker, keys] : alive) {
    for (Lease& lease : make_leases(std::move(keys), true, config_.lease)) {
      send(worker, std::move(lease), actions);
    }
  }
  next_renewal_ = TimePoint::max();
  if (!handoffs_.empty() || !early_.empty()) schedule_renewal(now);
}

// Remembered as ended, or the sink's next repetition would begin their time anew.
void Source::end_early_credits(TimePoint now, SourceActions& actions) {
  std::erase_if(early_, [&](const auto& entry) {
    const auto& [key, early] = entry;
    if (early.until > now) return false;
    send(early.from, Abort{key, true, AbortReason::kDeadline}, actions);
    ended_.add(key);
    return true;
  });
}

void Source::schedule_renewal(TimePoint now) {
  next_renewal_ = std::min(next_renewal_, now + config_.renew_every);
}

// --- within -------------------------------------------------------------------------------------

Source::Handoff* Source::find_credited(WorkerId from, const HandoffKey& key) {
  const auto it = handoffs_.find(key);
  if (it != handoffs_.end() && it->second.info.sink == from && credited(it->second)) {
    return &it->second;
  }
  ++stats_.ignored_messages;
  return nullptr;
}

void Source::send(WorkerId to, Message message, SourceActions& actions) {
  actions.emplace_back(SendMessage{to, std::move(message)});
}

void Source::take_early_credit(Handoff& h, TimePoint now, SourceActions& actions) {
  const auto it = early_.find(h.info.key);
  if (it != early_.end()) {
    const EarlyCredit early = std::move(it->second);
    early_.erase(it);
    if (early.from == h.info.sink) {
      accept(h, early.credit, now, actions);
    } else {
      ++stats_.ignored_messages;
      send(early.from, Abort{h.info.key, true, AbortReason::kUnknown}, actions);
    }
  }
  schedule_renewal(now);
}

// A credit for a hand-off that has none: goes on to streaming, or from parked to committed.
void Source::accept(Handoff& h, const Credit& credit, TimePoint now, SourceActions& actions) {
  const uint32_t block_tokens = config_.layout.block_tokens;
  if (credit.token_hash != h.info.token_hash || credit.num_tokens != h.info.num_tokens) {
    ++stats_.token_mismatches;
    send(h.info.sink, Abort{credit.key, true, AbortReason::kTokenMismatch}, actions);
    lose_sink(h, error(Errc::kDataCorrupt, "the decode worker speaks of another prompt"), now,
              actions);
    return;
  }
  if (credit.first_token % block_tokens != 0 && credit.first_token != credit.num_tokens) {
    send(h.info.sink, Abort{credit.key, true, AbortReason::kProtocol}, actions);
    lose_sink(
        h,
        error(Errc::kDataCorrupt, fmt::format("credit: first_token {} is within a block of {}",
                                              credit.first_token, block_tokens)),
        now, actions);
    return;
  }
  h.credit = credit;
  h.credit.lease = std::max(credit.lease, 2 * config_.renew_every);
  h.heard = h.timings.credited = now;
  h.sink_lost = false;
  const bool parked = h.state == State::kParked;
  if (parked) unpark(h);
  h.state = parked ? State::kCommitted : State::kStreaming;
  count_waiting(h);
  announce_from_credit(h, actions);
  if (parked) commit(h, actions);
  set_timer(h);
  schedule_renewal(now);
}

// Back to waiting for a credit, with the KV kept; says so once. If too much waits already, it is
// the end of `h`.
void Source::lose_sink(Handoff& h, Error why, TimePoint now, SourceActions& actions) {
  if (credited(h)) uncredit(h, now);
  h.info.granted = false;
  count_waiting(h);
  if (std::exchange(h.sink_lost, true)) return;
  if (waiting_blocks_ > config_.max_parked_blocks && num_waiting_ > 1) {
    return fail(h.info.key,
                error(Errc::kResourceExhausted,
                      fmt::format("{}, and {} blocks wait for decode workers already", why.message,
                                  waiting_blocks_ - num_blocks(h))),
                actions);
  }
  ++stats_.sinks_lost;
  actions.emplace_back(SinkLost{h.info.key, std::move(why)});
}

void Source::uncredit(Handoff& h, TimePoint now) {
  if (h.state == State::kCommitted) {
    park(h, now);
  } else {
    h.state = State::kComputing;
    set_timer(h);
  }
  count_waiting(h);
}

void Source::park(Handoff& h, TimePoint now) {
  assert(h.state != State::kParked);
  h.state = State::kParked;
  h.park_until = now + config_.park_timeout;
  ++num_parked_;
  parked_blocks_ += num_blocks(h);
  set_timer(h);
}

void Source::unpark(const Handoff& h) {
  --num_parked_;
  parked_blocks_ -= num_blocks(h);
}

// Its blocks count for the cap as long as no sink has room for them.
void Source::count_waiting(Handoff& h) {
  const bool waits = !credited(h) && !h.info.granted;
  if (waits == h.waits) return;
  h.waits = waits;
  num_waiting_ += waits ? 1 : -1;
  waiting_blocks_ += waits ? num_blocks(h) : -num_blocks(h);
}

void Source::fail_and_tell(const HandoffKey& key, Error why, AbortReason reason,
                           SourceActions& actions) {
  const Handoff& h = handoffs_.at(key);
  if (!h.sink_lost) send(h.info.sink, Abort{key, true, reason}, actions);
  fail(key, std::move(why), actions);
}

void Source::fail(const HandoffKey& key, Error why, SourceActions& actions,
                  std::optional<KvRange> suspect) {
  ++stats_.failed;
  actions.emplace_back(SourceFailed{key, std::move(why), suspect});
  forget(key);
}

void Source::forget(const HandoffKey& key) {
  ended_.add(key);
  const auto it = handoffs_.find(key);
  if (it->second.state == State::kParked) unpark(it->second);
  it->second.info.granted = true;
  count_waiting(it->second);
  newest_.erase({key.router, key.request});
  timers_.erase(key);
  handoffs_.erase(it);
}

}  // namespace baton::kvtransfer
