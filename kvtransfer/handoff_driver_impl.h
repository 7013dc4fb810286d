#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/base/descriptor.h"
#include "kvtransfer/device_reads.h"
#include "kvtransfer/handoff_driver.h"
#include "kvtransfer/handoff_metrics.h"
#include "kvtransfer/link_watch.h"
#include "kvtransfer/peer_table.h"
#include "kvtransfer/stream_digest.h"

// Private to kvtransfer/: the driver. handoff_driver.cc has its construction and loop,
// handoff_peers.cc who it is paired with, handoff_actions.cc what the state machines ask for,
// handoff_reads.cc the reads among that, handoff_device.cc those in a GPU's memory.
namespace baton::kvtransfer {

class Driver final : public HandoffDriver {
 public:
  Driver(const HandoffConfig& config, std::unique_ptr<Transport> transport,
         std::span<std::byte> cache, HandoffListener& listener, std::unique_ptr<Metrics> own,
         Metrics& metrics, std::unique_ptr<DeviceReads> device);
  status watch_device();  // once, where there is one

  std::span<std::byte> cache() const override { return cache_; }
  const Hello& hello() const override { return hello_; }

  status add_peer(const Hello& theirs, TimePoint now) override;
  void remove_peer(WorkerId worker, TimePoint now) override;
  bool peer_up(WorkerId worker) const override {
    const Peer* peer = peers_.find(worker);
    return peer != nullptr && peer->up;
  }
  std::vector<WorkerId> peers() const override { return peers_.workers(); }
  std::string transport_in_force(WorkerId worker) const override {
    const Peer* peer = peers_.find(worker);
    return peer == nullptr ? "?" : peer->transport;
  }
  uint32_t granule_tokens(WorkerId worker) const override {
    const Peer* peer = peers_.find(worker);
    return peer == nullptr ? 0 : peer->pairing.granule_tokens;
  }

  status begin(const SourceBegin& begin, TimePoint now) override {
    return ran(source_.begin(begin, now, source_actions_), now);
  }
  status layers_done(const HandoffKey& key, const LayersDone& done, TimePoint now) override {
    return ran(source_.layers_done(key, done, now, source_actions_), now);
  }
  status finished(const HandoffKey& key, std::span<const TokenId> first_tokens,
                  TimePoint now) override {
    return ran(source_.finished(key, first_tokens, now, source_actions_), now);
  }
  status abort(const HandoffKey& key, AbortReason reason, TimePoint now) override {
    return ran(source_.abort(key, reason, now, source_actions_), now);
  }
  status retarget(const HandoffKey& key, Generation generation, WorkerId sink,
                  TimePoint now) override {
    return ran(source_.retarget(key, generation, sink, now, source_actions_), now);
  }
  status reserve(SinkReserve reserve, TimePoint now) override {
    return ran(sink_.reserve(std::move(reserve), now, sink_actions_), now);
  }
  void refuse(const HandoffKey& key, WorkerId source, Duration retry_after,
              TimePoint now) override {
    sink_.refuse(key, source, retry_after, sink_actions_);
    run(now);
  }
  status cancel(const HandoffKey& key, TimePoint now) override {
    return ran(sink_.cancel(key, now, sink_actions_), now);
  }

  bool poll(TimePoint now) override;
  int event_fd() const override { return device_ ? any_.get() : transport_->event_fd(); }
  result<bool> arm() override {
    if (may_start_reads() || source_.anything_ready()) return false;
    if (device_ && !device_->arm()) return false;
    return transport_->arm();
  }
  TimePoint next_deadline() const override {
    return std::min({source_.next_deadline(), sink_.next_deadline(), next_heartbeat_});
  }
  const Source& source() const override { return source_; }
  const Sink& sink() const override { return sink_; }
  const latency::LinkModel& link() const override { return link_.model(); }

 private:
  status ran(status s, TimePoint now) {
    run(now);
    return s;
  }
  void on_event(const TransportEvent& event, TimePoint now);
  void on_message(WorkerId from, const std::vector<std::byte>& payload, TimePoint now);
  void dispatch(WorkerId from, const Credit& m, TimePoint now) {
    source_.on_credit(from, m, now, source_actions_);
  }
  void dispatch(WorkerId from, const Refuse& m, TimePoint now) {
    source_.on_refuse(from, m, now, source_actions_);
  }
  void dispatch(WorkerId from, const Ack& m, TimePoint now) {
    source_.on_ack(from, m, now, source_actions_);
  }
  void dispatch(WorkerId from, const Nack& m, TimePoint now) {
    source_.on_nack(from, m, now, source_actions_);
  }
  void dispatch(WorkerId from, Announce& m, TimePoint now) {
    sink_.on_announce(from, std::move(m), now, sink_actions_);
  }
  void dispatch(WorkerId from, Commit& m, TimePoint now) {
    sink_.on_commit(from, std::move(m), now, sink_actions_);
  }
  void dispatch(WorkerId from, const Abort& m, TimePoint now) {
    m.from_source ? sink_.on_abort(from, m, now, sink_actions_)
                  : source_.on_abort(from, m, now, source_actions_);
  }
  void dispatch(WorkerId from, const Lease& m, TimePoint now) {
    m.from_source ? sink_.on_lease(from, m, now, sink_actions_)
                  : source_.on_lease(from, m, now, source_actions_);
  }
  void on_get_progress(const TransportEvent& event);
  void on_get_end(const TransportEvent& event, TimePoint now);
  ReadAs how_to_read(const kvcache::KvLayout& theirs, const Pairing& pairing,
                     PeerId connection) const;
  std::string in_force(const Peer& peer) const;
  void bring_up(WorkerId worker, TimePoint now);
  void lose(WorkerId worker, Error why, TimePoint now);
  void drop(WorkerId worker, const Error& why, TimePoint now);
  void heartbeat(TimePoint now);

  // Carries out actions until there are none; nested calls leave theirs to the outermost.
  void run(TimePoint now);
  void execute(SendMessage& action, TimePoint now);
  void execute(SourceReleased& action, TimePoint now);
  void execute(SourceFailed& action, TimePoint now);
  void execute(SinkRefused& action, TimePoint now);
  void execute(SinkLost& action, TimePoint now);
  void execute(StartRead& action, TimePoint now);
  void execute(GiveUpRead& action, TimePoint now);
  void execute(Joined& action, TimePoint now);
  void execute(SinkFailed& action, TimePoint now);
  void execute(SinkReleased& action, TimePoint now);
  void execute(DigestMismatch& action, TimePoint now);
  void send_now(WorkerId to, const std::string& payload, TimePoint now);

  // A read that waits for its turn; if it is copied here (ReadAs), how far it is.
  struct PendingRead {
    StartRead read;
    uint32_t copied_to = 0;   // position in the sequence
    uint64_t digest_sum = 0;  // of what is copied
    // Without digests:
    Stream<Segment> stream;
    uint64_t copied = 0;  // bytes of it
    bool given_up = false;
  };
  // A read under way; if it is answered in turns, with the digest of what has come so far.
  struct OpenRead {
    StartRead read;
    bool in_turns = false;
    StreamDigest digest;
  };
  bool may_start_reads() const {
    return !pending_reads_.empty() && device_turns_.size() < kMaxDeviceReads;
  }
  void start_reads(TimePoint now);
  uint64_t start_read(PendingRead pending, TimePoint now);
  uint64_t copy_some(PendingRead pending, const std::byte* source_cache, TimePoint now);
  uint64_t copy_some_unchecked(PendingRead pending, const std::byte* source_cache, TimePoint now);
  KvRange take_part(PendingRead& pending, uint64_t bytes, uint64_t max_cells) const;
  void start_device_turn(PendingRead pending, DeviceMapId from, TimePoint now);
  void poll_device(TimePoint now);
  void on_device_end(const DeviceReadEnd& end, TimePoint now);
  uint64_t digest_of(OpenRead& open);
  void end_read(const StartRead& read, uint64_t digest, TimePoint now);
  void fail_read(uint64_t cookie, const Error& why, TimePoint now);

  const HandoffConfig config_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<DeviceReads> device_;  // null: the cache is the transport's memory
  Descriptor any_{-1};                   // of either
  std::span<std::byte> cache_;
  HandoffListener& listener_;
  std::unique_ptr<Metrics> own_metrics_;  // if the caller has none
  HandoffMetrics metrics_;
  Hello hello_;
  Source source_;
  Sink sink_;
  PeerTable peers_;
  TimePoint next_heartbeat_ = TimePoint::max();

  bool running_ = false;
  SourceActions source_actions_;
  SinkActions sink_actions_;
  LinkWatch link_;
  std::deque<PendingRead> pending_reads_;
  std::unordered_map<uint64_t, OpenRead> reads_;            // by cookie
  std::unordered_map<uint64_t, PendingRead> device_turns_;  // by cookie: a turn is under way
  std::vector<GetOp> ops_;                                  // scratch
  std::vector<DeviceBlock> device_blocks_;                  // scratch
  std::vector<DeviceReadEnd> device_ends_;                  // scratch
  std::vector<TransportEvent> events_;                      // scratch
};

}  // namespace baton::kvtransfer
