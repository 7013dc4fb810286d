#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/metrics.h"
#include "common/base/result.h"
#include "common/latency/link_model.h"
#include "kvtransfer/device_reads.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/sink.h"
#include "kvtransfer/source.h"
#include "kvtransfer/transport.h"
#include "kvtransfer/wire_read.h"

namespace baton::kvtransfer {

// What becomes of hand-offs. Called from within HandoffDriver's methods, on its thread; may call
// the driver back.
class HandoffListener {
 public:
  virtual ~HandoffListener() = default;

  // As the sink. Decode from the reserved blocks; every byte in them was checked.
  virtual void joined(const Joined& joined, TimePoint now) = 0;
  // Given up. kDataCorrupt, kUnavailable, kDeadlineExceeded: compute the prompt again elsewhere.
  // The blocks are quarantined until released.
  virtual void sink_failed(const HandoffKey& key, const Error& error) = 0;
  virtual void sink_released(const HandoffKey& key, std::span<const BlockId> blocks) = 0;

  // As the source. Exactly one of the first two ends each begin(): free the blocks.
  virtual void source_released(const SourceReleased& released) = 0;
  virtual void source_failed(const SourceFailed& failed) = 0;
  virtual void source_refused(const HandoffKey& key, Duration retry_after) = 0;
  // The KV is kept for a while: retarget() or abort().
  virtual void source_sink_lost(const HandoffKey& key, const Error& error, TimePoint now) = 0;

  // Messages flow both ways; reads go over `transport`.
  virtual void peer_up(WorkerId worker, std::string_view transport) = 0;
  // After add_peer(): it died, went silent or was removed. Pair again to use it again.
  virtual void peer_lost(WorkerId worker, const Error& error) = 0;
};

struct HandoffConfig {
  WorkerId worker;
  std::string model_key;
  std::string numerics;
  kvcache::KvLayout layout;
  uint32_t num_blocks = 0;
  Sharing sharing = Sharing::kNone;  // kRanks: other processes write shards of the cache

  // Timers. Silence of a peer beyond peer_timeout is its death; a process that ends is noticed
  // sooner, by its connection.
  Duration heartbeat_every = milliseconds(500);
  Duration peer_timeout = seconds(4);
  Duration lease = seconds(5);
  Duration renew_every = seconds(1);
  Duration park_timeout = seconds(30);
  Duration early_credit_ttl = seconds(10);

  // Bounds.
  uint32_t max_handoffs = 4096;  // each way
  uint32_t max_parked_blocks = UINT32_MAX;
  uint64_t read_bytes = 1u << 20;    // of one turn of a copy, or of one read in pieces; about
  uint64_t window_bytes = 4u << 20;  // also the bytes that one poll() reads at most, about
  uint32_t window_reads = 64;
  uint32_t turns_window_reads = kMaxOpenReads;
  uint64_t device_read_bytes = 64u << 20;  // of one turn of a read in a GPU's memory, about

  uint32_t protocol_max = kProtocolMax;  // lower: as an older worker

  // What reads are believed to take before any was seen, in bytes of `layout`.
  latency::LinkCosts link{1e-4, 1e-9};
  // For figures only: the time after a copy, which `now` of the poll that makes it does not have.
  // None: that `now`.
  std::function<TimePoint()> clock;

  // False: what arrives is believed without hashing it.
  bool verify_digests = true;
};

// The hand-off of one worker: state machines, transport and digests tied together. One thread (the
// control thread) calls everything; `now` never goes back. Typical use by an event loop:
//   wait until event_fd() is readable or next_deadline() has come
//   while (driver.poll(now)) {}      // or post it again, to let other work in between
//   driver.arm() says false: poll again; true: wait
class HandoffDriver {
 public:
  // Takes the transport and has it allocate the KV cache memory: num_blocks * block_bytes. The
  // listener and metrics outlive the driver. `metrics` may be null.
  // With `device_reads`, the cache is what those read into, in a GPU's memory, which outlives the
  // driver; the transport carries messages alone. kIo where the system gives no descriptor.
  static result<std::unique_ptr<HandoffDriver>> create(
      const HandoffConfig& config, std::unique_ptr<Transport> transport, HandoffListener& listener,
      Metrics* metrics, std::unique_ptr<DeviceReads> device_reads = nullptr);
  virtual ~HandoffDriver() = default;

  // The cache memory, [num_blocks][block_bytes]; as the layout says. Lives as long as the driver.
  // Only this worker's engine and this driver's reads write to it. Empty where it is a GPU's.
  virtual std::span<std::byte> cache() const = 0;

  // --- pairing: hellos travel over the workers' authenticated RPC ---
  virtual const Hello& hello() const = 0;
  // kUnsupported (incompatible; the sentence has both sides' values), kInvalidArgument,
  // kUnavailable. A worker that is here already is kept as it is.
  virtual status add_peer(const Hello& theirs, TimePoint now) = 0;
  // Its RPC broke, or it said goodbye. Hand-offs with it end as if it had died.
  virtual void remove_peer(WorkerId worker, TimePoint now) = 0;
  virtual bool peer_up(WorkerId worker) const = 0;
  virtual std::vector<WorkerId> peers() const = 0;
  // How reads from it really travel; "?" if unknown.
  virtual std::string transport_in_force(WorkerId worker) const = 0;
  // SinkReserve::first_token for this source is a multiple of this; 0 if unknown.
  virtual uint32_t granule_tokens(WorkerId worker) const = 0;

  // --- as the source; see Source ---
  virtual status begin(const SourceBegin& begin, TimePoint now) = 0;
  // What becomes ready between two poll()s is announced together.
  virtual status layers_done(const HandoffKey& key, const LayersDone& done, TimePoint now) = 0;
  virtual status finished(const HandoffKey& key, std::span<const TokenId> first_tokens,
                          TimePoint now) = 0;
  virtual status abort(const HandoffKey& key, AbortReason reason, TimePoint now) = 0;
  virtual status retarget(const HandoffKey& key, Generation generation, WorkerId sink,
                          TimePoint now) = 0;

  // --- as the sink; see Sink ---
  virtual status reserve(SinkReserve reserve, TimePoint now) = 0;
  virtual void refuse(const HandoffKey& key, WorkerId source, Duration retry_after,
                      TimePoint now) = 0;
  virtual status cancel(const HandoffKey& key, TimePoint now) = 0;

  // --- the loop ---
  // Handles what has arrived and what is due. True: more can be done at once.
  virtual bool poll(TimePoint now) = 0;
  virtual int event_fd() const = 0;
  virtual result<bool> arm() = 0;  // as Transport::arm
  virtual TimePoint next_deadline() const = 0;

  virtual const Source& source() const = 0;  // for figures
  virtual const Sink& sink() const = 0;
  // What this worker's reads take, as it has learnt; in bytes of its layout.
  virtual const latency::LinkModel& link() const = 0;
};

}  // namespace baton::kvtransfer
