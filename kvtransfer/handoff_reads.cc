#include <algorithm>
#include <utility>

#include "common/kvcache/copy_past_caches.h"
#include "kvtransfer/copy_digest.h"
#include "kvtransfer/handoff_driver_impl.h"
#include "kvtransfer/range_digest.h"

// The driver's reads: started in turn, checked when they are here.
namespace baton::kvtransfer {
namespace {

GetOp op_of(const Segment& s, std::byte* cache) {
  return {s.source_offset, cache + s.sink_offset, s.bytes, s.count, s.source_stride, s.sink_stride};
}

}  // namespace

// Starts what waits, as far as one poll() may go.
void Driver::start_reads(TimePoint now) {
  uint64_t bytes = 0;
  while (may_start_reads() && bytes < config_.window_bytes) {
    PendingRead next = std::move(pending_reads_.front());
    pending_reads_.pop_front();
    bytes += start_read(std::move(next), now);
    if (!sink_actions_.empty()) run(now);
  }
}

// Returns the bytes that were read or asked for.
uint64_t Driver::start_read(PendingRead pending, TimePoint now) {
  StartRead& read = pending.read;
  const Peer* peer = peers_.find(read.source);
  if (peer == nullptr) {
    fail_read(read.cookie, error(Errc::kUnavailable, "the prefill worker is gone"), now);
    return 0;
  }
  if (peer->device) {
    start_device_turn(std::move(pending), *peer->device, now);
    return 0;
  }
  if (peer->read_as == ReadAs::kCopied) {
    const auto mapped = transport_->mapped(peer->connection);
    if (!mapped.empty()) {
      return config_.verify_digests ? copy_some(std::move(pending), mapped.data(), now)
                                    : copy_some_unchecked(std::move(pending), mapped.data(), now);
    }
  }
  ops_.clear();
  uint64_t bytes = 0;
  for (const Segment& s : read.segments) {
    ops_.push_back(op_of(s, cache_.data()));
    bytes += s.total_bytes();
  }
  const bool in_turns = peer->read_as == ReadAs::kTurns;
  const result<bool> done = transport_->get(peer->connection, ops_, read.cookie,
                                            in_turns ? Answer::kInTurns : Answer::kAtOnce);
  if (!done) {
    fail_read(read.cookie, done.error(), now);
    return bytes;
  }
  OpenRead open{std::move(read), in_turns, {}};
  if (*done) {
    end_read(open.read, digest_of(open), now);
  } else {
    reads_.emplace(open.read.cookie, std::move(open));
  }
  return *done || !in_turns ? bytes : 0;
}

// The next blocks of a read, of about `bytes` and at most `max_cells`, a block at least; counts
// them as copied.
KvRange Driver::take_part(PendingRead& pending, uint64_t bytes, uint64_t max_cells) const {
  const kvcache::KvLayout& layout = config_.layout;
  KvRange part = pending.read.range;
  const uint64_t layers = part.layer_end - part.layer_begin;
  const uint64_t most = std::min(bytes / (layers * layout.layer_bytes()), max_cells / layers);
  const uint64_t columns =
      std::clamp<uint64_t>(most, 1, layout.blocks_for(part.token_end - pending.copied_to));
  part.token_begin = pending.copied_to;
  part.token_end = static_cast<uint32_t>(
      std::min<uint64_t>(part.token_end, pending.copied_to + columns * layout.block_tokens));
  pending.copied_to = part.token_end;
  return part;
}

// Copies and checks about read_bytes of a read, and puts the rest behind what else waits.
uint64_t Driver::copy_some(PendingRead pending, const std::byte* source_cache, TimePoint now) {
  const kvcache::KvLayout& layout = config_.layout;
  const KvRange part = take_part(pending, config_.read_bytes, UINT64_MAX);
  const StartRead& read = pending.read;
  const BlockRun source{read.source_blocks, read.range.token_begin};
  const BlockRun sink{read.blocks, read.first_token};
  pending.digest_sum += copy_digest(layout, source_cache, source, cache_.data(), sink, part);
  if (pending.copied_to < read.range.token_end) {
    pending_reads_.push_back(std::move(pending));
  } else {
    end_read(read, pending.digest_sum, now);
  }
  return layout.blocks_for(part.token_end - part.token_begin) *
         (part.layer_end - part.layer_begin) * layout.layer_bytes();
}

uint64_t Driver::copy_some_unchecked(PendingRead pending, const std::byte* source_cache,
                                     TimePoint now) {
  if (pending.copied == 0) pending.stream = Stream<Segment>(std::move(pending.read.segments));
  const Stream<Segment>& stream = pending.stream;
  const uint64_t n =
      std::min(std::max<uint64_t>(config_.read_bytes, 1), stream.bytes() - pending.copied);
  stream.walk(
      pending.copied, n, [&](const Segment& s, uint64_t piece, uint64_t within, uint64_t bytes) {
        kvcache::copy_past_caches(source_cache + s.source_offset + piece * s.source_stride + within,
                                  cache_.data() + s.sink_offset + piece * s.sink_stride + within,
                                  bytes);
      });
  pending.copied += n;
  if (pending.copied < stream.bytes()) {
    pending_reads_.push_back(std::move(pending));
  } else {
    pending.read.segments = stream.ranges();
    end_read(pending.read, pending.read.announced_digest, now);
  }
  return n;
}

// What has come of it is in the CPU's cache now.
void Driver::on_get_progress(const TransportEvent& event) {
  const auto it = reads_.find(event.cookie);
  if (it == reads_.end() || !config_.verify_digests) return;
  OpenRead& open = it->second;
  open.digest.advance(config_.layout, cache_.data(), open.read, event.bytes);
}

void Driver::on_get_end(const TransportEvent& event, TimePoint now) {
  const auto node = reads_.extract(event.cookie);
  if (node.empty()) return;
  OpenRead& open = node.mapped();
  if (event.kind == TransportEvent::Kind::kGetDone) {
    end_read(open.read, digest_of(open), now);
  } else {
    fail_read(event.cookie, error(Errc::kUnavailable, event.what), now);
  }
}

// All of it is here, and what came last is in the CPU's cache.
uint64_t Driver::digest_of(OpenRead& open) {
  const StartRead& read = open.read;
  if (!config_.verify_digests) return read.announced_digest;
  if (!open.in_turns) {
    return digest_range(config_.layout, cache_.data(), {read.blocks, read.first_token}, read.range);
  }
  open.digest.advance(config_.layout, cache_.data(), read, UINT64_MAX);
  return open.digest.sum();
}

void Driver::execute(GiveUpRead& action, TimePoint now) {
  const auto waits = std::ranges::find_if(
      pending_reads_, [&](const PendingRead& p) { return p.read.cookie == action.cookie; });
  if (waits != pending_reads_.end()) {
    pending_reads_.erase(waits);
    fail_read(action.cookie, error(Errc::kCancelled, "given up"), now);
  } else if (const auto turn = device_turns_.find(action.cookie); turn != device_turns_.end()) {
    turn->second.given_up = true;  // nobody can stop what the GPU is at
  } else if (const Peer* peer = peers_.find(action.source); peer != nullptr) {
    transport_->give_up(peer->connection, action.cookie);
  }
}

void Driver::end_read(const StartRead& read, uint64_t digest, TimePoint now) {
  if (config_.clock) now = std::max(now, config_.clock());
  metrics_.read(read, now - read.announced);
  link_.done(read.cookie, now);
  sink_.read_done(read.cookie, digest, now, sink_actions_);
}

void Driver::fail_read(uint64_t cookie, const Error& why, TimePoint now) {
  link_.failed(cookie);
  sink_.read_failed(cookie, why, now, sink_actions_);
}

}  // namespace baton::kvtransfer
