#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "kvtransfer/sink.h"
#include "kvtransfer/wire_read.h"

// How a sink reads what was announced: in turn, within a window, each part checked.
namespace baton::kvtransfer {
namespace {

// Of a layer of one of the source's blocks, at most.
uint64_t segments_of_cell(const kvcache::KvLayout& source, const kvcache::KvLayout& sink) {
  if (lie_alike(source, sink)) return source.num_shards();
  return uint64_t{source.num_planes()} * source.num_heads() *
         std::max(source.block_tokens / sink.block_tokens, 1u);
}

}  // namespace

void Sink::make_ready(Handoff& h) {
  Peer& peer = peers_.at(h.info.source);
  if (h.reads.empty() || !may_read(h, peer)) return;
  if (!std::exchange(h.queued, true)) peer.ready.push_back(h.info.key);
}

bool Sink::window_open(const Peer& peer) const {
  switch (peer.read_as) {
    case ReadAs::kCopied:
      return true;
    case ReadAs::kTurns:
      return peer.reads_in_flight < config_.turns_window_reads &&
             peer.segments_in_flight < config_.turns_window_segments;
    case ReadAs::kPieces:
      break;
  }
  return peer.reads_in_flight < 2 || (peer.reads_in_flight < config_.window_reads &&
                                      peer.bytes_in_flight < config_.window_bytes);
}

// Whether it may have one more read, as far as others let it.
bool Sink::may_read(const Handoff& h, const Peer& peer) const {
  if (peer.read_as == ReadAs::kPieces || h.reads_in_flight == 0) return true;
  if (peer.read_as == ReadAs::kCopied) return false;
  // Half of the window is kept for those that have none.
  return 2 * peer.reads_in_flight < config_.turns_window_reads &&
         2 * peer.segments_in_flight < config_.turns_window_segments &&
         (h.reads_in_flight < 2 || h.bytes_in_flight < config_.read_bytes);
}

std::optional<Read> Sink::next_read(Handoff& h, const Peer& peer) const {
  const uint64_t cell_bytes = peer.layout.layer_bytes();
  switch (peer.read_as) {
    case ReadAs::kCopied:
      return h.reads.next(UINT64_MAX);
    case ReadAs::kTurns:
      return h.reads.next(config_.turns_read_bytes / cell_bytes,
                          config_.turns_window_segments / peer.layout.num_shards());
    case ReadAs::kPieces:
      break;
  }
  return h.reads.next(
      std::min<uint64_t>(config_.read_bytes / cell_bytes,
                         kMaxReadRanges / segments_of_cell(peer.layout, config_.layout)));
}

// Starts reads from `source`, one of each hand-off in turn, so that a long one delays a short one
// by no more than a read.
void Sink::pump(WorkerId source, SinkActions& actions) {
  const auto it = peers_.find(source);
  if (it == peers_.end()) return;
  Peer& peer = it->second;
  while (!peer.ready.empty() && window_open(peer)) {
    const HandoffKey key = peer.ready.front();
    peer.ready.pop_front();
    const auto found = handoffs_.find(key);
    if (found == handoffs_.end() || found->second.state == State::kDraining) continue;
    Handoff& h = found->second;
    h.queued = false;
    if (!may_read(h, peer)) continue;  // it is ready again when a read of its own has ended
    const std::optional<Read> read = next_read(h, peer);
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
  action.again = read.attempt > 0;
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

  in_flight_.emplace(action.cookie, InFlight{h.info.key, h.info.source, peer.epoch, read, bytes,
                                             action.segments.size()});
  ++h.reads_in_flight;
  h.bytes_in_flight += bytes;
  ++peer.reads_in_flight;
  peer.bytes_in_flight += bytes;
  peer.segments_in_flight += action.segments.size();
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
  Handoff& h = handoffs_.at(flight.key);
  --h.reads_in_flight;
  h.bytes_in_flight -= flight.bytes;
  const auto peer = peers_.find(flight.source);
  if (peer != peers_.end() && peer->second.epoch == flight.epoch) {
    --peer->second.reads_in_flight;
    peer->second.bytes_in_flight -= flight.bytes;
    peer->second.segments_in_flight -= flight.segments;
  }
  return flight;
}

// Of a hand-off that has failed.
void Sink::give_up_reads(const HandoffKey& key, SinkActions& actions) {
  std::set<uint64_t> cookies;  // in the order of their start
  for (const auto& [cookie, flight] : in_flight_) {
    if (flight.key == key) cookies.insert(cookie);
  }
  for (const uint64_t cookie : cookies) {
    actions.emplace_back(GiveUpRead{cookie, in_flight_.at(cookie).source});
  }
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
  Handoff& h = handoffs_.at(flight.key);
  if (h.state == State::kDraining) {
    release_if_quiet(flight.key, actions);
  } else {
    ++stats_.read_failures;
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
