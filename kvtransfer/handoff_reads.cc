#include <utility>

#include "kvtransfer/copy_digest.h"
#include "kvtransfer/handoff_driver_impl.h"
#include "kvtransfer/range_digest.h"

// The driver's reads: started in turn, checked when they are here.
namespace baton::kvtransfer {

// Starts what waits, as far as one poll() may go.
void Driver::start_reads(TimePoint now) {
  uint64_t bytes = 0;
  while (!pending_reads_.empty() && bytes < config_.window_bytes) {
    StartRead read = std::move(pending_reads_.front());
    pending_reads_.pop_front();
    for (const Segment& s : read.segments) bytes += s.bytes;
    start_read(std::move(read), now);
    run(now);
  }
}

void Driver::start_read(StartRead read, TimePoint now) {
  const Peer* peer = peers_.find(read.source);
  if (peer == nullptr) {
    sink_.read_failed(read.cookie, error(Errc::kUnavailable, "the prefill worker is gone"), now,
                      sink_actions_);
    return;
  }
  if (peer->alike && config_.verify_digests) {
    if (const auto mapped = transport_->mapped(peer->connection); !mapped.empty()) {
      const uint64_t digest =
          copy_digest(config_.layout, mapped.data(), {read.source_blocks, read.range.token_begin},
                      cache_.data(), {read.blocks, read.first_token}, read.range);
      end_read(read, digest, now);
      return;
    }
  }
  ops_.clear();
  for (const Segment& s : read.segments) {
    ops_.push_back({s.source_offset, cache_.data() + s.sink_offset, s.bytes});
  }
  const result<bool> done = transport_->get(peer->connection, ops_, read.cookie);
  if (!done) {
    sink_.read_failed(read.cookie, done.error(), now, sink_actions_);
  } else if (*done) {
    check_read(read, now);
  } else {
    reads_.emplace(read.cookie, std::move(read));
  }
}

void Driver::on_get_end(const TransportEvent& event, TimePoint now) {
  const auto node = reads_.extract(event.cookie);
  if (node.empty()) return;
  if (event.kind == TransportEvent::Kind::kGetDone) {
    check_read(node.mapped(), now);
  } else {
    sink_.read_failed(event.cookie, error(Errc::kUnavailable, event.what), now, sink_actions_);
  }
}

// All of it is here, and in the CPU's cache.
void Driver::check_read(const StartRead& read, TimePoint now) {
  end_read(read,
           config_.verify_digests ? digest_range(config_.layout, cache_.data(),
                                                 {read.blocks, read.first_token}, read.range)
                                  : read.announced_digest,
           now);
}

void Driver::end_read(const StartRead& read, uint64_t digest, TimePoint now) {
  metrics_.read(read, now - read.announced);
  sink_.read_done(read.cookie, digest, now, sink_actions_);
}

}  // namespace baton::kvtransfer
