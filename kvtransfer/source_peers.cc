#include <fmt/format.h>

#include <vector>

#include "kvtransfer/source.h"

// What sinks say to the source.
namespace baton::kvtransfer {

void Source::on_credit(WorkerId from, const Credit& credit, TimePoint now, SourceActions& actions) {
  if (const auto it = handoffs_.find(credit.key); it != handoffs_.end()) {
    Handoff& h = it->second;
    if (h.info.sink != from) {
      ++stats_.ignored_messages;
    } else if (!credited(h)) {
      accept(h, credit, now, actions);
    } else if (credit.first_token != h.credit.first_token) {
      ++stats_.ignored_messages;
    } else {
      h.heard = now;  // said again: it has heard nothing yet
      announce_again(h, actions);
    }
    return;
  }
  const auto newest = newest_.find({credit.key.router, credit.key.request});
  if (ended_.contains(credit.key) ||
      (newest != newest_.end() && newest->second > credit.key.generation)) {
    ++stats_.ignored_messages;
    send(from, Abort{credit.key, true, AbortReason::kSuperseded}, actions);
    return;
  }
  if (early_.size() >= config_.max_early_credits && !early_.contains(credit.key)) {
    ++stats_.early_credits_dropped;  // the sink says it again
    return;
  }
  // Said again, it does not live longer: what never begins ends.
  early_.try_emplace(credit.key, EarlyCredit{from, credit, now + config_.early_credit_ttl});
  schedule_renewal(now);
}

void Source::on_refuse(WorkerId from, const Refuse& refuse, TimePoint now, SourceActions& actions) {
  const auto it = handoffs_.find(refuse.key);
  if (it == handoffs_.end() || it->second.info.sink != from || credited(it->second)) {
    ++stats_.ignored_messages;
    return;
  }
  ++stats_.refused;
  Handoff& h = it->second;
  if (h.state == State::kParked) {  // it stands in line there: kept as long as that is said
    h.park_until = now + config_.park_timeout;
    set_timer(h);
  }
  actions.emplace_back(SinkRefused{refuse.key, refuse.retry_after});
}

void Source::on_ack(WorkerId from, const Ack& ack, TimePoint now, SourceActions& actions) {
  Handoff* h = find_credited(from, ack.key);
  if (h == nullptr) return;
  if (h->state != State::kCommitted) {
    ++stats_.ignored_messages;
    return;
  }
  h->timings.released = now;
  actions.emplace_back(SourceReleased{ack.key, h->timings});
  ++stats_.released;
  forget(ack.key);
}

void Source::on_nack(WorkerId from, const Nack& nack, TimePoint now, SourceActions& actions) {
  Handoff* h = find_credited(from, nack.key);
  if (h == nullptr) return;
  h->heard = now;
  switch (nack.reason) {
    case NackReason::kMissing:
      announce_again(*h, actions);
      return;
    case NackReason::kUnknown:
      lose_sink(*h, error(Errc::kAborted, "the sink does not know the hand-off"), now, actions);
      return;
    case NackReason::kMismatch:
      ++stats_.digest_mismatches;
      fail(nack.key,
           error(Errc::kDataCorrupt,
                 fmt::format("layers {}..{} of tokens {}..{} were announced as {:016x} and read "
                             "twice as something else, last as {:016x}",
                             nack.layer_begin, nack.layer_end, nack.token_begin, nack.token_end,
                             nack.announced_digest, nack.read_digest)),
           actions, KvRange{nack.layer_begin, nack.layer_end, nack.token_begin, nack.token_end});
      return;
  }
}

void Source::on_abort(WorkerId from, const Abort& abort, TimePoint now, SourceActions& actions) {
  if (const auto it = early_.find(abort.key); it != early_.end() && it->second.from == from) {
    early_.erase(it);
    return;
  }
  if (Handoff* h = find_credited(from, abort.key)) {
    lose_sink(*h, error(Errc::kAborted, fmt::format("the sink gave up: {}", name(abort.reason))),
              now, actions);
  }
}

void Source::on_lease(WorkerId from, const Lease& lease, TimePoint now, SourceActions& actions) {
  for (const HandoffKey& key : lease.keys) {
    const auto it = handoffs_.find(key);
    if (it != handoffs_.end() && it->second.info.sink == from && credited(it->second)) {
      it->second.heard = now;
      it->second.credit.lease = std::max(lease.extends, 2 * config_.renew_every);
    } else if (!early_.contains(key)) {
      ++stats_.ignored_messages;
      send(from, Abort{key, true, AbortReason::kUnknown}, actions);
    }
  }
}

void Source::peer_lost(WorkerId peer, TimePoint now, SourceActions& actions) {
  std::erase_if(early_, [peer](const auto& entry) { return entry.second.from == peer; });
  std::vector<HandoffKey> theirs;
  for (const auto& [key, h] : handoffs_) {
    if (h.info.sink == peer) theirs.push_back(key);
  }
  for (const HandoffKey& key : theirs) {
    lose_sink(handoffs_.at(key), error(Errc::kUnavailable, "the decode worker is gone"), now,
              actions);
  }
}

}  // namespace baton::kvtransfer
