#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/kvcache/layout.h"
#include "kvtransfer/deadline_queue.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/plan.h"
#include "kvtransfer/read_list.h"
#include "kvtransfer/recent_keys.h"

namespace baton::kvtransfer {

struct SinkConfig {
  kvcache::KvLayout layout;
  uint32_t num_blocks = 0;            // of this worker's cache
  Duration lease = seconds(5);        // silence of the source that ends a hand-off
  Duration renew_every = seconds(1);  // between leases and resent credits
  uint32_t max_handoffs = 4096;
  uint32_t max_joined = 4096;        // remembered, to answer a repeated commit
  uint64_t read_bytes = 1u << 20;    // one read at most, if a layer of a block is not more
  uint64_t window_bytes = 4u << 20;  // in flight from one peer, at least two reads
  uint32_t window_reads = 64;        // in flight from one peer
  // Of a source whose reads take turns.
  uint64_t turns_read_bytes = 1u << 30;
  uint32_t turns_window_reads = 256;
  uint32_t turns_window_segments = 16384;  // beyond them, nothing is begun; and of one read
};

// How a source is read.
enum class ReadAs : uint8_t {
  kPieces,  // over the network: at most read_bytes at a time, and window_bytes in flight
  kTurns,   // over the network, where all reads that are open take turns (transport.h), or in a
            // GPU's memory, where the driver lets them: each is as large as what was announced at
            // once, and a hand-off has two or about read_bytes
  kCopied,  // by copying out of its memory, a bit of each read in turn: likewise, and a hand-off
            // has one at a time
};

struct SinkReserve {
  HandoffKey key;
  WorkerId source;
  std::vector<BlockId> blocks;  // this worker's, for [first_token, num_tokens), exclusively
  uint32_t first_token = 0;     // what is before is here already; a multiple of the granule
  uint32_t num_tokens = 0;      // of the prompt
  uint64_t token_hash = 0;
  TimePoint deadline;
};

struct SinkTimings {
  TimePoint reserved, first_announce, committed, joined;
  Duration longest_read{};  // from an announce to the end of its last read
  Duration exposed{};       // from the commit's arrival to joined: what nobody could hide
  Duration parked{};        // at the source, for want of room here
  uint64_t bytes = 0;
  uint64_t segments = 0;
  uint32_t reads = 0, rereads = 0;
};

// --- actions, with SendMessage ------------------------------------------------------------------

// Read `segments` from `source`, then compute the digest of `range` in `blocks` of this worker's
// cache and answer read_done() or read_failed() with the cookie. The blocks are written until then.
struct StartRead {
  uint64_t cookie = 0;
  HandoffKey key;
  WorkerId source;
  std::vector<Segment> segments;
  KvRange range;
  std::vector<BlockId> source_blocks;  // that hold the range there, from its first token on
  std::vector<BlockId> blocks;         // that hold the range here, in sequence order
  uint32_t first_token = 0;            // position of blocks[0]'s token 0
  uint64_t announced_digest = 0;
  TimePoint announced;
  bool again = false;  // a second time
};
// Nobody wants that read any more; it still needs its end, the sooner the better.
struct GiveUpRead {
  uint64_t cookie = 0;
  WorkerId source;
};
// Everything is here and checked: the blocks belong to the service again, to decode from.
struct Joined {
  HandoffKey key;
  std::vector<TokenId> first_tokens;  // one a choice
  SinkTimings timings;
};
// Given up. The blocks may still be written: they come back with SinkReleased.
struct SinkFailed {
  HandoffKey key;
  Error error;
};
// After SinkFailed, at once or when the last read in flight has ended: nothing writes to the blocks
// any more.
struct SinkReleased {
  HandoffKey key;
  std::vector<BlockId> blocks;
};
// A digest differed, to be logged and counted. It is read again if `again`.
struct DigestMismatch {
  HandoffKey key;
  WorkerId source;
  KvRange range;
  uint64_t announced = 0, read = 0;
  bool again = false;
};
using SinkAction = std::variant<SendMessage, StartRead, GiveUpRead, Joined, SinkFailed,
                                SinkReleased, DigestMismatch>;
using SinkActions = std::vector<SinkAction>;

struct SinkStats {
  uint64_t reserved = 0, joined = 0, failed = 0, refused = 0;
  uint64_t reads = 0, rereads = 0, read_bytes = 0, segments = 0;
  uint64_t digest_mismatches = 0, read_failures = 0, token_mismatches = 0;
  uint64_t ignored_messages = 0;  // unknown, stale or from the wrong peer
  uint64_t repeated_announces = 0;
  uint64_t protocol_errors = 0;
  uint64_t leases_ended = 0;  // of sources that fell silent
  HandoffKey last_mismatch;   // whose digest differed last, and where it was read
  WorkerId last_mismatch_source;
};

// The decode side of all hand-offs of one worker: a pure state machine. Each call appends what is
// to be done to `actions`. Every reserve() ends in exactly one Joined, or in one SinkFailed and
// then one SinkReleased.
//   reserved -> reading -> joined                    (reading also holds a commit that came early)
//   any      -> draining -> gone                     failed with reads in flight
class Sink {
 public:
  explicit Sink(SinkConfig config);

  // A worker that may be read from, with its own layout (compatible: compat.h).
  void add_source(WorkerId worker, const kvcache::KvLayout& layout, uint32_t num_blocks,
                  ReadAs read_as = ReadAs::kPieces);

  // From the service. kInvalidArgument (also: generation not new, blocks in use by a hand-off),
  // kNotFound, kUnavailable (source not connected), kResourceExhausted.
  status reserve(SinkReserve reserve, TimePoint now, SinkActions& actions);
  // No room now: tells the source so. Nothing is kept.
  void refuse(const HandoffKey& key, WorkerId source, Duration retry_after, SinkActions& actions);
  // Ends it with SinkFailed(kCancelled), and tells the source.
  status cancel(const HandoffKey& key, TimePoint now, SinkActions& actions);

  // From peers. What is stale, unknown or from the wrong worker is ignored and counted.
  void on_announce(WorkerId from, Announce announce, TimePoint now, SinkActions& actions);
  void on_commit(WorkerId from, Commit commit, TimePoint now, SinkActions& actions);
  void on_abort(WorkerId from, const Abort& abort, TimePoint now, SinkActions& actions);
  void on_lease(WorkerId from, const Lease& lease, TimePoint now, SinkActions& actions);
  // Also forgets the source; reads in flight still need their end.
  void peer_lost(WorkerId peer, TimePoint now, SinkActions& actions);

  // The end of a StartRead. `digest`: over what arrived.
  void read_done(uint64_t cookie, uint64_t digest, TimePoint now, SinkActions& actions);
  void read_failed(uint64_t cookie, const Error& why, TimePoint now, SinkActions& actions);

  // Call when next_deadline() is reached.
  void tick(TimePoint now, SinkActions& actions);
  TimePoint next_deadline() const;

  size_t num_handoffs() const { return handoffs_.size(); }  // draining ones too
  size_t held_blocks() const { return num_held_; }
  size_t reads_in_flight() const { return in_flight_.size(); }
  const SinkStats& stats() const { return stats_; }

 private:
  enum class State : uint8_t { kReserved, kReading, kDraining };
  struct Handoff {
    SinkReserve info;
    State state = State::kReserved;
    ReadList reads;       // what is announced, and how far it is read
    bool queued = false;  // in its source's ready list
    uint32_t reads_in_flight = 0;
    uint64_t bytes_in_flight = 0;
    bool committed = false;
    std::vector<TokenId> first_tokens;
    TimePoint heard;
    Duration lease{};  // silence of the source that ends it
    SinkTimings timings;
  };
  struct Peer {
    kvcache::KvLayout layout;
    uint32_t num_blocks = 0;
    ReadAs read_as = ReadAs::kPieces;
    std::deque<HandoffKey> ready;  // with something to read; each gets one read in turn
    uint64_t bytes_in_flight = 0, segments_in_flight = 0;
    uint32_t reads_in_flight = 0;
    uint64_t epoch = 0;  // tells a worker that came back from its former life
  };
  struct InFlight {
    HandoffKey key;
    WorkerId source;
    uint64_t epoch = 0;  // of its Peer
    Read read;
    uint64_t bytes = 0, segments = 0;
  };
  using Request = std::pair<RouterId, RequestId>;

  Handoff* find_live(WorkerId from, const HandoffKey& key);
  status check_reserve(const SinkReserve& reserve) const;
  status check_announce(const Handoff& h, const Announce& announce) const;
  void send(WorkerId to, Message message, SinkActions& actions);
  void send_credit(const Handoff& h, SinkActions& actions);
  void answer_unknown(WorkerId from, const HandoffKey& key, SinkActions& actions);
  void make_ready(Handoff& h);
  void pump(WorkerId source, SinkActions& actions);
  void hold(std::span<const BlockId> blocks, bool held);
  bool window_open(const Peer& peer) const;
  bool may_read(const Handoff& h, const Peer& peer) const;
  std::optional<Read> next_read(Handoff& h, const Peer& peer) const;
  void give_up_reads(const HandoffKey& key, SinkActions& actions);
  void start(Handoff& h, Peer& peer, const Read& read, SinkActions& actions);
  InFlight take_flight(uint64_t cookie);
  void reread_or_fail(Handoff& h, const InFlight& flight, Error why, AbortReason reason,
                      SinkActions& actions);
  void reject(Handoff& h, const InFlight& flight, uint64_t digest, SinkActions& actions);
  void join_if_complete(Handoff& h, TimePoint now, SinkActions& actions);
  void fail(Handoff& h, Error why, SinkActions& actions);
  void fail_and_tell(Handoff& h, Error why, AbortReason reason, SinkActions& actions);
  void forget_live(const Handoff& h);
  void release_if_quiet(const HandoffKey& key, SinkActions& actions);
  KvRange range_of(const Handoff& h, const Peer& peer, const Read& read) const;
  void set_timer(const Handoff& h);
  void on_timer(const HandoffKey& key, TimePoint now, SinkActions& actions);
  void renew(TimePoint now, SinkActions& actions);
  void schedule_renewal(TimePoint now);

  SinkConfig config_;
  std::map<WorkerId, Peer> peers_;
  std::map<HandoffKey, Handoff> handoffs_;
  std::map<Request, Generation> newest_;  // of each live request
  std::unordered_map<uint64_t, InFlight> in_flight_;
  std::vector<bool> held_;  // [num_blocks] blocks of handoffs_
  size_t num_held_ = 0;
  RecentKeys joined_;
  DeadlineQueue<HandoffKey> timers_;
  TimePoint next_renewal_ = TimePoint::max();
  uint64_t next_cookie_ = 1, next_epoch_ = 1;
  SinkStats stats_;
};

}  // namespace baton::kvtransfer
