#include "kvtransfer/sink.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::kvtransfer {

Sink::Sink(SinkConfig config)
    : config_(std::move(config)), held_(config_.num_blocks), joined_(config_.max_joined) {}

void Sink::add_source(WorkerId worker, const kvcache::KvLayout& layout, uint32_t num_blocks,
                      ReadAs read_as) {
  peers_[worker] =
      Peer{.layout = layout, .num_blocks = num_blocks, .read_as = read_as, .epoch = next_epoch_++};
}

// --- from the service ---------------------------------------------------------------------------

status Sink::check_reserve(const SinkReserve& r) const {
  const auto bad = [&r](std::string_view what) {
    return error(Errc::kInvalidArgument,
                 fmt::format("hand-off {}: reserve: {}", to_string(r.key), what));
  };
  const auto peer = peers_.find(r.source);
  if (peer == peers_.end()) {
    return error(Errc::kUnavailable,
                 fmt::format("prefill worker {:x} is not connected", r.source.value));
  }
  if (handoffs_.size() >= config_.max_handoffs) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} hand-offs are open already", handoffs_.size()));
  }
  const auto newest = newest_.find({r.key.router, r.key.request});
  if ((newest != newest_.end() && newest->second >= r.key.generation) ||
      handoffs_.contains(r.key) || joined_.contains(r.key)) {
    return bad("its generation is not new");
  }
  if (r.num_tokens == 0 || r.num_tokens > kMaxTokens || r.first_token > r.num_tokens) {
    return bad("no such tokens");
  }
  const uint32_t granule = std::max(config_.layout.block_tokens, peer->second.layout.block_tokens);
  if (r.first_token % granule != 0 && r.first_token != r.num_tokens) {
    return bad(fmt::format("first_token {} is no multiple of {}", r.first_token, granule));
  }
  if (r.blocks.size() != config_.layout.blocks_for(r.num_tokens - r.first_token)) {
    return bad("not as many blocks as the tokens need");
  }
  std::vector<bool> own(config_.num_blocks);
  for (const BlockId block : r.blocks) {
    if (block.value >= config_.num_blocks || held_[block.value] || own[block.value]) {
      return bad(fmt::format("block {} is in use or does not exist", block.value));
    }
    own[block.value] = true;
  }
  return {};
}

status Sink::reserve(SinkReserve reserve, TimePoint now, SinkActions& actions) {
  BATON_CHECK_OK(check_reserve(reserve));
  const Request request{reserve.key.router, reserve.key.request};
  if (const auto it = newest_.find(request); it != newest_.end()) {
    fail_and_tell(handoffs_.at({request.first, request.second, it->second}),
                  error(Errc::kAborted, "a newer generation was reserved"),
                  AbortReason::kSuperseded, actions);
  }
  const kvcache::KvLayout& source = peers_.at(reserve.source).layout;
  const HandoffKey key = reserve.key;
  hold(reserve.blocks, true);
  newest_[request] = key.generation;
  Handoff& h = handoffs_[key];
  h.reads = ReadList(source.num_layers(), source.blocks_for(reserve.first_token),
                     source.blocks_for(reserve.num_tokens));
  h.info = std::move(reserve);
  h.heard = h.timings.reserved = now;
  h.lease = config_.lease;
  ++stats_.reserved;
  send_credit(h, actions);
  set_timer(h);
  schedule_renewal(now);
  return {};
}

void Sink::refuse(const HandoffKey& key, WorkerId source, Duration retry_after,
                  SinkActions& actions) {
  ++stats_.refused;
  send(source, Refuse{key, std::min(retry_after, kMaxLease)}, actions);
}

status Sink::cancel(const HandoffKey& key, TimePoint, SinkActions& actions) {
  const auto it = handoffs_.find(key);
  if (it == handoffs_.end() || it->second.state == State::kDraining) {
    return error(Errc::kNotFound, fmt::format("no hand-off {} as the sink", to_string(key)));
  }
  fail_and_tell(it->second, error(Errc::kCancelled, "cancelled"), AbortReason::kCancelled, actions);
  return {};
}

// --- from peers ---------------------------------------------------------------------------------

// Whether `announce` fits what was credited and what the source said of itself.
status Sink::check_announce(const Handoff& h, const Announce& a) const {
  const auto bad = [](std::string_view what) {
    return error(Errc::kDataCorrupt, fmt::format("announce: {}", what));
  };
  const Peer& peer = peers_.at(h.info.source);
  if (a.parts.size() != 1) return bad("not of one rank");
  if (a.layer_begin >= a.layer_end || a.layer_end > peer.layout.num_layers()) {
    return bad(fmt::format("layers {}..{}", a.layer_begin, a.layer_end));
  }
  const std::vector<BlockId>& blocks = a.parts[0].blocks;
  if (blocks.empty() || a.first_block < h.reads.first_block() ||
      a.first_block + blocks.size() > h.reads.end_block()) {
    return bad(fmt::format("{} blocks from {} are not within {}..{}", blocks.size(), a.first_block,
                           h.reads.first_block(), h.reads.end_block()));
  }
  const uint64_t end = (a.first_block + blocks.size()) * peer.layout.block_tokens;
  if (a.token_end != std::min<uint64_t>(end, h.info.num_tokens)) {
    return bad(fmt::format("token_end {}", a.token_end));
  }
  if (a.parts[0].digests.size() != blocks.size() * (a.layer_end - a.layer_begin)) {
    return bad("not one digest for each layer and block");
  }
  for (const BlockId block : blocks) {
    if (block.value >= peer.num_blocks) {
      return bad(fmt::format("block {} of {}", block.value, peer.num_blocks));
    }
  }
  return {};
}

void Sink::on_announce(WorkerId from, Announce announce, TimePoint now, SinkActions& actions) {
  Handoff* h = find_live(from, announce.key);
  if (h == nullptr) return answer_unknown(from, announce.key, actions);
  h->heard = now;
  h->state = State::kReading;
  if (h->timings.first_announce == TimePoint{}) h->timings.first_announce = now;
  const status fits = check_announce(*h, announce);
  const result<uint64_t> fresh =
      fits ? h->reads.add(announce, now) : result<uint64_t>(fits.error());
  if (!fresh) {
    ++stats_.protocol_errors;
    fail_and_tell(*h, fresh.error(), AbortReason::kProtocol, actions);
    return;
  }
  if (*fresh == 0) ++stats_.repeated_announces;
  make_ready(*h);
  pump(from, actions);
}

void Sink::on_commit(WorkerId from, Commit commit, TimePoint now, SinkActions& actions) {
  if (joined_.contains(commit.key)) return send(from, Ack{commit.key}, actions);
  Handoff* h = find_live(from, commit.key);
  if (h == nullptr) return answer_unknown(from, commit.key, actions);
  h->heard = now;
  h->state = State::kReading;
  if (commit.token_hash != h->info.token_hash || commit.num_tokens != h->info.num_tokens) {
    ++stats_.token_mismatches;
    fail_and_tell(*h,
                  error(Errc::kDataCorrupt,
                        fmt::format("the source speaks of another prompt: {} tokens hashed as "
                                    "{:016x} there, {} as {:016x} here",
                                    commit.num_tokens, commit.token_hash, h->info.num_tokens,
                                    h->info.token_hash)),
                  AbortReason::kTokenMismatch, actions);
    return;
  }
  if (!h->committed) {
    h->committed = true;
    h->first_tokens = std::move(commit.first_tokens);
    h->timings.committed = now;
    h->timings.parked = commit.parked;
  }
  if (!h->reads.all_announced()) {
    send(from, Nack{.key = h->info.key, .reason = NackReason::kMissing}, actions);
  }
  join_if_complete(*h, now, actions);
}

void Sink::on_abort(WorkerId from, const Abort& abort, TimePoint, SinkActions& actions) {
  if (Handoff* h = find_live(from, abort.key)) {
    // The request itself is over: an end, but nothing that anybody must make good.
    const bool over =
        abort.reason == AbortReason::kCancelled || abort.reason == AbortReason::kNotNeeded;
    fail(*h,
         error(over ? Errc::kCancelled : Errc::kAborted,
               fmt::format("the source gave up: {}", name(abort.reason))),
         actions);
  }
}

void Sink::on_lease(WorkerId from, const Lease& lease, TimePoint now, SinkActions& actions) {
  for (const HandoffKey& key : lease.keys) {
    if (Handoff* h = find_live(from, key)) {
      h->heard = now;
      h->lease = std::max(lease.extends, 2 * config_.renew_every);
    } else {
      send(from, Abort{key, false, AbortReason::kUnknown}, actions);
    }
  }
}

void Sink::peer_lost(WorkerId peer, TimePoint, SinkActions& actions) {
  std::vector<HandoffKey> lost;
  for (const auto& [key, h] : handoffs_) {
    if (h.info.source == peer && h.state != State::kDraining) lost.push_back(key);
  }
  for (const HandoffKey& key : lost) {
    fail(handoffs_.at(key), error(Errc::kUnavailable, "the prefill worker is gone"), actions);
  }
  peers_.erase(peer);
}

// --- timers -------------------------------------------------------------------------------------

void Sink::tick(TimePoint now, SinkActions& actions) {
  for (HandoffKey key; timers_.pop_due(now, key);) on_timer(key, now, actions);
  if (next_renewal_ <= now) renew(now, actions);
}

TimePoint Sink::next_deadline() const { return std::min(timers_.next(), next_renewal_); }

void Sink::set_timer(const Handoff& h) {
  timers_.set(h.info.key, std::min(h.info.deadline, h.heard + h.lease));
}

void Sink::on_timer(const HandoffKey& key, TimePoint now, SinkActions& actions) {
  Handoff& h = handoffs_.at(key);
  if (now >= h.info.deadline) {
    fail_and_tell(h, error(Errc::kDeadlineExceeded, "the request's deadline passed"),
                  AbortReason::kDeadline, actions);
  } else if (now >= h.heard + h.lease) {
    ++stats_.leases_ended;
    fail_and_tell(h, error(Errc::kDeadlineExceeded, "the prefill worker's lease ended"),
                  AbortReason::kDeadline, actions);
  } else {
    set_timer(h);  // it was heard of since
  }
}

// Tells each source that its hand-offs live on; a credit that had no answer is said again.
void Sink::renew(TimePoint now, SinkActions& actions) {
  std::map<WorkerId, std::vector<HandoffKey>> alive;
  for (const auto& [key, h] : handoffs_) {
    if (h.state == State::kReserved) send_credit(h, actions);
    if (h.state == State::kReading) alive[h.info.source].push_back(key);
  }
  for (auto& [worker, keys] : alive) {
    for (Lease& lease : make_leases(std::move(keys), false, config_.lease)) {
      send(worker, std::move(lease), actions);
    }
  }
  next_renewal_ = TimePoint::max();
  if (!handoffs_.empty()) schedule_renewal(now);
}

void Sink::schedule_renewal(TimePoint now) {
  next_renewal_ = std::min(next_renewal_, now + config_.renew_every);
}

// --- within -------------------------------------------------------------------------------------

// Reserved or reading, and from that source.
Sink::Handoff* Sink::find_live(WorkerId from, const HandoffKey& key) {
  const auto it = handoffs_.find(key);
  if (it != handoffs_.end() && it->second.info.source == from &&
      it->second.state != State::kDraining) {
    return &it->second;
  }
  ++stats_.ignored_messages;
  return nullptr;
}

void Sink::hold(std::span<const BlockId> blocks, bool held) {
  for (const BlockId block : blocks) held_[block.value] = held;
  num_held_ = held ? num_held_ + blocks.size() : num_held_ - blocks.size();
}

void Sink::send(WorkerId to, Message message, SinkActions& actions) {
  actions.emplace_back(SendMessage{to, std::move(message)});
}

void Sink::send_credit(const Handoff& h, SinkActions& actions) {
  send(h.info.source,
       Credit{h.info.key, config_.lease, h.info.first_token, h.info.num_tokens, h.info.token_hash},
       actions);
}

void Sink::answer_unknown(WorkerId from, const HandoffKey& key, SinkActions& actions) {
  if (joined_.contains(key)) return;  // a repetition that was under way
  send(from, Nack{.key = key, .reason = NackReason::kUnknown}, actions);
}

void Sink::join_if_complete(Handoff& h, TimePoint now, SinkActions& actions) {
  if (!h.committed || !h.reads.all_checked()) return;
  h.timings.joined = now;
  h.timings.exposed = now - h.timings.committed;
  send(h.info.source, Ack{h.info.key}, actions);
  actions.emplace_back(Joined{h.info.key, std::move(h.first_tokens), h.timings});
  ++stats_.joined;
  const HandoffKey key = h.info.key;
  joined_.add(key);
  forget_live(h);
  hold(h.info.blocks, false);
  handoffs_.erase(key);
}

void Sink::fail_and_tell(Handoff& h, Error why, AbortReason reason, SinkActions& actions) {
  send(h.info.source, Abort{h.info.key, false, reason}, actions);
  fail(h, std::move(why), actions);
}

void Sink::fail(Handoff& h, Error why, SinkActions& actions) {
  ++stats_.failed;
  actions.emplace_back(SinkFailed{h.info.key, std::move(why)});
  h.state = State::kDraining;
  forget_live(h);
  give_up_reads(h.info.key, actions);
  release_if_quiet(h.info.key, actions);
}

void Sink::forget_live(const Handoff& h) {
  timers_.erase(h.info.key);
  newest_.erase({h.info.key.router, h.info.key.request});
}

// The end of a draining hand-off: its blocks can be used again once no read can touch them.
void Sink::release_if_quiet(const HandoffKey& key, SinkActions& actions) {
  const auto it = handoffs_.find(key);
  if (it->second.state != State::kDraining || it->second.reads_in_flight > 0) return;
  hold(it->second.info.blocks, false);
  actions.emplace_back(SinkReleased{key, std::move(it->second.info.blocks)});
  handoffs_.erase(it);
}

}  // namespace baton::kvtransfer
