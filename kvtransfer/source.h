#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/kvcache/layout.h"
#include "kvtransfer/deadline_queue.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/plan.h"
#include "kvtransfer/recent_keys.h"

namespace baton::kvtransfer {

struct SourceConfig {
  kvcache::KvLayout layout;
  Duration lease = seconds(5);              // told to sinks: how long to hold without a word
  Duration renew_every = seconds(1);        // between leases and resent commits
  Duration park_timeout = seconds(30);      // finished, and nobody reads it
  Duration early_credit_ttl = seconds(10);  // credited, and nothing begins
  uint32_t max_handoffs = 4096;
  uint32_t max_early_credits = 4096;
  uint32_t max_ended = 4096;                // remembered, to refuse what still comes for them
  uint32_t max_parked_blocks = UINT32_MAX;  // that nobody has granted; one alone may be more
};

struct SourceBegin {
  HandoffKey key;
  WorkerId sink;            // who will read it
  uint32_t num_tokens = 0;  // of the prompt: so many positions of KV
  uint64_t token_hash = 0;  // kvcache::hash_tokens of the prompt
  TimePoint deadline;       // over at the latest then
  bool granted = false;     // the sink has room, and its credit is on the way
};

// Layers of consecutive blocks that are final: just computed, or found in the prefix cache (then
// all layers at once). Blocks of a layer come in sequence order, without gaps.
struct LayersDone {
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t first_block = 0;           // index in the sequence
  std::span<const BlockId> blocks;    // [num_blocks], ids in this worker's cache
  std::span<const uint64_t> digests;  // [num_layers, num_blocks], kvcache::digest_layer
};

struct SourceTimings {
  TimePoint begun, credited, finished, released;  // epoch: never happened
  uint32_t announces = 0;
};

// --- actions, with SendMessage ------------------------------------------------------------------

// The sink has it all: the blocks may be freed. The end of this hand-off.
struct SourceReleased {
  HandoffKey key;
  SourceTimings timings;
};
// Given up: the blocks may be freed. The end of this hand-off. `suspect`: KV that did not match its
// digest when it was read; it must not be used again, from the prefix cache neither.
struct SourceFailed {
  HandoffKey key;
  Error error;
  std::optional<KvRange> suspect;
};
// The sink is full; the KV stays parked until it credits after all, or park_timeout after the last
// such word.
struct SinkRefused {
  HandoffKey key;
  Duration retry_after{};
};
// The sink is out of this hand-off; the KV is kept: retarget() or abort() before park_timeout.
struct SinkLost {
  HandoffKey key;
  Error error;
};
using SourceAction = std::variant<SendMessage, SourceReleased, SourceFailed, SinkRefused, SinkLost>;
using SourceActions = std::vector<SourceAction>;

struct SourceStats {
  uint64_t begun = 0, released = 0, failed = 0, refused = 0, sinks_lost = 0;
  uint64_t leases_ended = 0;  // of sinks that fell silent
  uint64_t announces = 0, announces_repeated = 0, commits_repeated = 0;
  uint64_t ignored_messages = 0;  // unknown, stale or from the wrong peer
  uint64_t token_mismatches = 0, digest_mismatches = 0;
  uint64_t early_credits_dropped = 0;
};

// The prefill side of all hand-offs of one worker: a pure state machine. Each call appends what is
// to be done to `actions`. Every begin() ends in exactly one SourceReleased or SourceFailed.
//   computing -> streaming -> committed -> released      credited before the end of prefill
//   computing -> parked    -> committed -> released      credited after it
class Source {
 public:
  explicit Source(SourceConfig config);

  // From the service. Errors are the caller's: kInvalidArgument (also: generation not new),
  // kNotFound (unknown or already ended: not a bug, the end is on its way), kResourceExhausted.
  status begin(const SourceBegin& begin, TimePoint now, SourceActions& actions);
  // Noted, and announced with what else becomes ready before announce_ready(); all that was the
  // last is announced at once.
  status layers_done(const HandoffKey& key, const LayersDone& done, TimePoint now,
                     SourceActions& actions);
  // Call when no more layers are about to be told.
  void announce_ready(SourceActions& actions);
  bool anything_ready() const { return !ready_.empty(); }
  // All blocks of all layers are done and the first token of each choice is sampled.
  status finished(const HandoffKey& key, std::span<const TokenId> first_tokens, TimePoint now,
                  SourceActions& actions);
  // Ends it with SourceFailed(kCancelled), and tells the sink why. kNotNeeded: the first token was
  // the last one.
  status abort(const HandoffKey& key, AbortReason reason, TimePoint now, SourceActions& actions);
  // Another worker will read it, under a higher generation; the old key is gone.
  status retarget(const HandoffKey& key, Generation generation, WorkerId sink, TimePoint now,
                  SourceActions& actions);

  // From peers. What is stale, unknown or from the wrong worker is ignored and counted.
  void on_credit(WorkerId from, const Credit& credit, TimePoint now, SourceActions& actions);
  void on_refuse(WorkerId from, const Refuse& refuse, TimePoint now, SourceActions& actions);
  void on_ack(WorkerId from, const Ack& ack, TimePoint now, SourceActions& actions);
  void on_nack(WorkerId from, const Nack& nack, TimePoint now, SourceActions& actions);
  void on_abort(WorkerId from, const Abort& abort, TimePoint now, SourceActions& actions);
  void on_lease(WorkerId from, const Lease& lease, TimePoint now, SourceActions& actions);
  void peer_lost(WorkerId peer, TimePoint now, SourceActions& actions);

  // Call when next_deadline() is reached.
  void tick(TimePoint now, SourceActions& actions);
  TimePoint next_deadline() const;

  size_t num_handoffs() const { return handoffs_.size(); }
  bool holds(const HandoffKey& key) const { return handoffs_.contains(key); }
  size_t num_early_credits() const { return early_.size(); }
  uint32_t num_parked() const { return num_parked_; }  // finished, without credit
  uint32_t parked_blocks() const { return parked_blocks_; }
  // Of hand-offs that no sink has room for yet, finished or not.
  uint32_t num_waiting() const { return num_waiting_; }
  uint32_t waiting_blocks() const { return waiting_blocks_; }
  uint32_t most_waiting_blocks() const { return config_.max_parked_blocks; }
  const SourceStats& stats() const { return stats_; }

 private:
  enum class State : uint8_t { kComputing, kParked, kStreaming, kCommitted };
  struct Handoff {
    SourceBegin info;
    State state = State::kComputing;
    bool sink_lost = false;  // told the service so
    bool waits = false;      // counted among waiting_blocks_
    std::vector<BlockId> blocks;
    std::vector<std::vector<uint64_t>> digests;  // [layer][block]; its size is what is done
    std::vector<uint32_t> announced;             // [layer] blocks announced to this sink
    std::vector<TokenId> first_tokens;
    Credit credit;  // valid while credited
    TimePoint heard, park_until;
    SourceTimings timings;
  };
  struct EarlyCredit {
    WorkerId from;
    Credit credit;
    TimePoint until;
  };
  using Request = std::pair<RouterId, RequestId>;
  using Handoffs = std::map<HandoffKey, Handoff>;

  bool all_done(const Handoff& h) const;
  bool credited(const Handoff& h) const {
    return h.state == State::kStreaming || h.state == State::kCommitted;
  }
  uint32_t num_blocks(const Handoff& h) const {
    return config_.layout.blocks_for(h.info.num_tokens);
  }
  status check_done(const Handoff& h, const LayersDone& done) const;
  Handoff* find_credited(WorkerId from, const HandoffKey& key);
  void send(WorkerId to, Message message, SourceActions& actions);
  void take_early_credit(Handoff& h, TimePoint now, SourceActions& actions);
  void accept(Handoff& h, const Credit& credit, TimePoint now, SourceActions& actions);
  void announce_from_credit(Handoff& h, SourceActions& actions);
  void announce_again(Handoff& h, SourceActions& actions);
  void announce_new(Handoff& h, SourceActions& actions);
  uint32_t announce_layers(Handoff& h, uint32_t layer, uint32_t limit, SourceActions& actions);
  void announce(Handoff& h, uint32_t layer_begin, uint32_t layer_end, uint32_t block_begin,
                uint32_t block_end, SourceActions& actions);
  void commit(Handoff& h, SourceActions& actions);
  void lose_sink(Handoff& h, Error why, TimePoint now, SourceActions& actions);
  void uncredit(Handoff& h, TimePoint now);
  void park(Handoff& h, TimePoint now);
  void unpark(const Handoff& h);
  void count_waiting(Handoff& h);
  void fail(const HandoffKey& key, Error why, SourceActions& actions,
            std::optional<KvRange> suspect = {});
  void fail_and_tell(const HandoffKey& key, Error why, AbortReason reason, SourceActions& actions);
  void forget(const HandoffKey& key);
  void set_timer(const Handoff& h);
  void on_timer(const HandoffKey& key, TimePoint now, SourceActions& actions);
  void renew(TimePoint now, SourceActions& actions);
  void end_early_credits(TimePoint now, SourceActions& actions);
  void schedule_renewal(TimePoint now);

  SourceConfig config_;
  Handoffs handoffs_;
  std::map<Request, Generation> newest_;     // of each live request
  std::map<HandoffKey, EarlyCredit> early_;  // credits that came before begin()
  std::set<HandoffKey> ready_;               // with layers to announce; some may have ended
  RecentKeys ended_;
  DeadlineQueue<HandoffKey> timers_;  // of handoffs_
  TimePoint next_renewal_ = TimePoint::max();
  uint32_t num_parked_ = 0, parked_blocks_ = 0;
  uint32_t num_waiting_ = 0, waiting_blocks_ = 0;
  SourceStats stats_;
};

}  // namespace baton::kvtransfer
