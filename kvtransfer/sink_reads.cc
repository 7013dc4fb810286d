#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kvtransfer/sink.h"

// How a sink reads what was announced: in turn, within a window, each part checked.
namespace baton::kvtransfer {

void Sink::make_ready(Handoff& h) {
  Peer& peer = peers_.at(h.info.source);
  if (h.reads.empty() || (peer.direct && h.reads_in_flight > 0)) return;
  if (!std::exchange(h.queued, true)) peer.ready.push_back(h.info.key);
}

bool Sink::window_open(const Peer& peer) const {
  return peer.direct || peer.reads_in_flight < 2 ||
         (peer.reads_in_flight < config_.window_reads &&
          peer.bytes_in_flight < config_.window_bytes);
}

// Starts reads from `source`, one of each hand-off in turn, so that a long one delays a short one
// by no more than a read.
void Sink::pump(WorkerId source, SinkActions& actions) {
  const auto it = peers_.find(source);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  const uint64_t most_cells =
      peer.direct ? UINT64_MAX : config_.read_bytes / peer.layout.layer_bytes();
  while (!peer.ready.empty() && window_open(peer)) {
    const HandoffKey key = peer.ready.front();
    peer.ready.pop_front();
    const auto found = handoffs_.find(key);
    if (found == handoffs_.end() || found->second.state == State::kDraining) continue;
    Handoff& h = found->second;
    h.queued = false;
    const std::optional<Read> read = h.reads.next(most_cells);
    if (!read) continue;
    start(h, peer, *read, actions);
    make_ready(h);
  }
}

KvRange Sink::range_of(const Handoff& h, const Peer& peer, const Read& read) const {
  const uint32_t block_tokens = peer.layout.block_tokens;
  return {read.layer_begin, read.layer_end, read.block_begin * block_tokens,
          std::min(read.block_end * block_tokens, h.info.num_tokens)};
}

void Sink::start(Handoff& h, Peer& peer, const Read& read, SinkActions& actions) {
  StartRead action;
  action.cookie = next_cookie_++;
  action.key = h.info.key;
  action.source = h.info.source;
  action.range = range_of(h, peer, read);
  action.announced_digest = read.digest;
  action.announced = read.announced;
  const uint32_t block_tokens = config_.layout.block_tokens;
  const uint32_t first = (action.range.token_begin - h.info.first_token) / block_tokens;
  const uint32_t end = config_.layout.blocks_for(action.range.token_end - h.info.first_token);
  action.blocks.assign(h.info.blocks.begin() + first, h.info.blocks.begin() + end);
  action.first_token = h.info.first_token + first * block_tokens;
  const auto source_blocks = h.reads.source_blocks(read.block_begin, read.block_end);
  action.source_blocks.assign(source_blocks.begin(), source_blocks.end());
  plan_transfer(peer.layout, {source_blocks, action.range.token_begin}, config_.layout,
                {action.blocks, action.first_token}, action.range, action.segments);
  uint64_t bytes = 0;
  for (const Segment& segment : action.segments) bytes += segment.total_bytes();

  in_flight_.emplace(action.cookie, InFlight{h.info.key, h.info.source, peer.epoch, read, bytes});
  ++h.reads_in_flight;
  ++peer.reads_in_flight;
  peer.bytes_in_flight += bytes;
  ++h.timings.reads;
  h.timings.rereads += read.attempt;
  h.timings.bytes += bytes;
  h.timings.segments += action.segments.size();
  ++stats_.reads;
  stats_.rereads += read.attempt;
  stats_.read_bytes += bytes;
  stats_.segments += action.segments.size();
  actions.emplace_back(std::move(action));
}

// The read has ended, in whatever way.
Sink::InFlight Sink::take_flight(uint64_t cookie) {
  const auto it = in_flight_.find(cookie);
  const InFlight flight = it->second;
  in_flight_.erase(it);
  --handoffs_.at(flight.key).reads_in_flight;
  const auto peer = peers_.find(flight.source);
  if (peer != peers_.end() && peer->second.epoch == flight.epoch) {
    --peer->second.reads_in_flight;
    peer->second.bytes_in_flight -= flight.bytes;
  }
  return flight;
}

void Sink::read_done(uint64_t cookie, uint64_t digest, TimePoint now, SinkActions& actions) {
  const InFlight flight = take_flight(cookie);
  Handoff& h = handoffs_.at(flight.key);
  if (h.state == State::kDraining) {
    release_if_quiet(flight.key, actions);
  } else if (digest != flight.read.digest) {
    reject(h, flight, digest, actions);
  } else {
    h.timings.longest_read = std::max(h.timings.longest_read, now - flight.read.announced);
    h.reads.checked(flight.read);
    make_ready(h);
    join_if_complete(h, now, actions);
  }
  pump(flight.source, actions);
}

void Sink::read_failed(uint64_t cookie, const Error& why, TimePoint, SinkActions& actions) {
  const InFlight flight = take_flight(cookie);
  ++stats_.read_failures;
  Handoff& h = handoffs_.at(flight.key);
  if (h.state == State::kDraining) {
    release_if_quiet(flight.key, actions);
  } else {
    reread_or_fail(h, flight, why, AbortReason::kReadFailed, actions);
  }
  pump(flight.source, actions);
}

// What arrived is not what was announced: damaged on the way, or the source's blocks hold
// something else by now.
void Sink::reject(Handoff& h, const InFlight& flight, uint64_t digest, SinkActions& actions) {
  ++stats_.digest_mismatches;
  stats_.last_mismatch = flight.key;
  stats_.last_mismatch_source = flight.source;
  const KvRange range = range_of(h, peers_.at(flight.source), flight.read);
  const bool again = flight.read.attempt == 0;
  actions.emplace_back(
      DigestMismatch{flight.key, flight.source, range, flight.read.digest, digest, again});
  if (again) {
    reread_or_fail(h, flight, {}, {}, actions);
    return;
  }
  send(flight.source,
       Nack{flight.key, NackReason::kMismatch, range.layer_begin, range.layer_end,
            range.token_begin, range.token_end, flight.read.digest, digest},
       actions);
  fail(h,
       error(Errc::kDataCorrupt,
             fmt::format("what was read twice is not what was announced: layers {}..{} of tokens "
                         "{}..{}, digest {:016x} announced, {:016x} read",
                         range.layer_begin, range.layer_end, range.token_begin, range.token_end,
                         flight.read.digest, digest)),
       actions);
}

void Sink::reread_or_fail(Handoff& h, const InFlight& flight, Error why, AbortReason reason,
                          SinkActions& actions) {
  if (flight.read.attempt > 0) {
    fail_and_tell(h, std::move(why), reason, actions);
    return;
  }
  Read again = flight.read;
  again.attempt = 1;
  h.reads.add_again(std::move(again));
  make_ready(h);
}

}  // namespace baton::kvtransfer
