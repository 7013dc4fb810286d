#include "kvtransfer/handoff_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/copy_digest.h"
#include "kvtransfer/handoff_metrics.h"
#include "kvtransfer/peer_table.h"
#include "kvtransfer/range_digest.h"

namespace baton::kvtransfer {
namespace {

constexpr size_t kMaxUnsent = 4096;      // messages kept for a peer that has not answered yet
constexpr int kMaxTransportRounds = 16;  // of progress in one poll()

SourceConfig source_config(const HandoffConfig& c) {
  return {.layout = c.layout,
          .lease = c.lease,
          .renew_every = c.renew_every,
          .park_timeout = c.park_timeout,
          .early_credit_ttl = c.early_credit_ttl,
          .max_handoffs = c.max_handoffs,
          .max_parked_blocks = c.max_parked_blocks};
}
SinkConfig sink_config(const HandoffConfig& c) {
  return {.layout = c.layout,
          .num_blocks = c.num_blocks,
          .lease = c.lease,
          .renew_every = c.renew_every,
          .max_handoffs = c.max_handoffs,
          .read_bytes = c.read_bytes,
          .window_bytes = c.window_bytes,
          .window_reads = c.window_reads};
}

class Driver final : public HandoffDriver {
 public:
  Driver(const HandoffConfig& config, std::unique_ptr<Transport> transport,
         std::span<std::byte> cache, HandoffListener& listener, std::unique_ptr<Metrics> own,
         Metrics& metrics)
      : config_(config),
        transport_(std::move(transport)),
        cache_(cache),
        listener_(listener),
        own_metrics_(std::move(own)),
        metrics_(metrics),
        source_(source_config(config)),
        sink_(sink_config(config)) {
    hello_.worker = config.worker;
    hello_.layout = config.layout;
    hello_.model_key = config.model_key;
    hello_.numerics = config.numerics;
    hello_.ranks = {{config.layout.head_begin, config.num_blocks, transport_->endpoint()}};
  }

  std::span<std::byte> cache() const override { return cache_; }
  const Hello& hello() const override { return hello_; }

  status add_peer(const Hello& theirs, TimePoint now) override;
  void remove_peer(WorkerId worker, TimePoint now) override {
    lose(worker, error(Errc::kUnavailable, "removed"), now);
    run(now);
  }
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
  int event_fd() const override { return transport_->event_fd(); }
  result<bool> arm() override {
    return pending_reads_.empty() ? transport_->arm() : result<bool>(false);
  }
  TimePoint next_deadline() const override {
    return std::min({source_.next_deadline(), sink_.next_deadline(), next_heartbeat_});
  }
  const Source& source() const override { return source_; }
  const Sink& sink() const override { return sink_; }

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
  void on_get_end(const TransportEvent& event, TimePoint now);
  void bring_up(WorkerId worker, TimePoint now);
  void lose(WorkerId worker, Error why, TimePoint now);
  void heartbeat(TimePoint now);

  // Carries out actions until there are none; nested calls leave theirs to the outermost.
  void run(TimePoint now);
  void execute(SendMessage& action, TimePoint now);
  void execute(SourceReleased& action, TimePoint now);
  void execute(SourceFailed& action, TimePoint now);
  void execute(SinkRefused& action, TimePoint now);
  void execute(SinkLost& action, TimePoint now);
  void execute(StartRead& action, TimePoint now);
  void execute(Joined& action, TimePoint now);
  void execute(SinkFailed& action, TimePoint now);
  void execute(SinkReleased& action, TimePoint now);
  void execute(DigestMismatch& action, TimePoint now);
  void send_now(WorkerId to, const std::string& payload, TimePoint now);

  void start_reads(TimePoint now);
  void start_read(StartRead read, TimePoint now);
  void check_read(const StartRead& read, TimePoint now);
  void end_read(const StartRead& read, uint64_t digest, TimePoint now);

  const HandoffConfig config_;
  std::unique_ptr<Transport> transport_;
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
  std::deque<StartRead> pending_reads_;
  std::unordered_map<uint64_t, StartRead> reads_;  // by cookie, under way
  std::vector<GetOp> ops_;                         // scratch
  std::vector<TransportEvent> events_;             // scratch
};

// --- peers --------------------------------------------------------------------------------------

status Driver::add_peer(const Hello& theirs, TimePoint now) {
  BATON_TRY(const Pairing pairing, pair(hello_, theirs));
  if (Peer* known = peers_.find(theirs.worker)) {
    known->last_heard = now;
    return {};
  }
  const Rank& rank = theirs.ranks[0];
  const std::string who = fmt::format("worker {:x}", theirs.worker.value);
  BATON_TRY(const PeerId connection, transport_->connect(rank.endpoint, who));
  peers_.add({.worker = theirs.worker,
              .connection = connection,
              .alike = lie_alike(theirs.layout, config_.layout),
              .pairing = pairing,
              .transport = transport_->in_force(connection),
              .last_heard = now});
  sink_.add_source(theirs.worker, theirs.layout, rank.num_blocks);
  next_heartbeat_ = std::min(next_heartbeat_, now + config_.heartbeat_every);
  send_now(theirs.worker, encode(Lease{}), now);
  run(now);
  return {};
}

// It has sent something, so it knows us: what waited can go.
void Driver::bring_up(WorkerId worker, TimePoint now) {
  Peer& peer = *peers_.find(worker);
  peer.up = true;
  peer.transport = transport_->in_force(peer.connection);
  const std::string transport = peer.transport;
  const std::deque<std::string> unsent = std::exchange(peer.unsent, {});
  LOG_INFO("paired with worker {:x}: reads travel over {}", worker.value, transport);
  metrics_.peer(worker, transport, true);
  send_now(worker, encode(Lease{}), now);  // so that it knows that we know it
  for (const std::string& payload : unsent) send_now(worker, payload, now);
  if (peers_.find(worker) != nullptr) listener_.peer_up(worker, transport);
}

void Driver::lose(WorkerId worker, Error why, TimePoint now) {
  const Peer* peer = peers_.find(worker);
  if (peer == nullptr) return;
  LOG_WARN("lost worker {:x}: {}", worker.value, why.message);
  transport_->close(peer->connection);
  metrics_.peer(worker, peer->transport, false);
  peers_.remove(worker);
  source_.peer_lost(worker, now, source_actions_);
  sink_.peer_lost(worker, now, sink_actions_);
  listener_.peer_lost(worker, why);
}

void Driver::heartbeat(TimePoint now) {
  for (const WorkerId worker : peers_.workers()) {
    const Peer* peer = peers_.find(worker);
    if (peer == nullptr) continue;
    const Duration silent = now - peer->last_heard;
    if (silent >= config_.peer_timeout) {
      lose(worker,
           error(Errc::kUnavailable, fmt::format("silent for {:.1f} s", to_seconds(silent))), now);
    } else if (now - peer->last_sent >= config_.heartbeat_every) {
      send_now(worker, encode(Lease{}), now);
    }
  }
  metrics_.update(source_, sink_, transport_->dropped_messages());
  next_heartbeat_ = peers_.empty() ? TimePoint::max() : now + config_.heartbeat_every;
}

// --- the loop -----------------------------------------------------------------------------------

bool Driver::poll(TimePoint now) {
  bool more = true;
  for (int round = 0; more && round < kMaxTransportRounds; ++round) {
    more = transport_->poll(events_);
    std::vector<TransportEvent> events = std::exchange(events_, {});
    for (const TransportEvent& event : events) {
      on_event(event, now);
      run(now);
    }
  }
  source_.tick(now, source_actions_);
  sink_.tick(now, sink_actions_);
  if (next_heartbeat_ <= now) heartbeat(now);
  run(now);
  start_reads(now);
  return more || !pending_reads_.empty();
}

void Driver::on_event(const TransportEvent& event, TimePoint now) {
  using Kind = TransportEvent::Kind;
  const Peer* peer = peers_.find(event.peer);
  switch (event.kind) {
    case Kind::kMessage:
      if (peer != nullptr) on_message(peer->worker, event.payload, now);
      return;
    case Kind::kGetDone:
    case Kind::kGetFailed:
      on_get_end(event, now);
      return;
    case Kind::kPeerLost:
      if (peer != nullptr) lose(peer->worker, error(Errc::kUnavailable, event.what), now);
      return;
    case Kind::kClosed:
      return;
  }
}

void Driver::on_message(WorkerId from, const std::vector<std::byte>& payload, TimePoint now) {
  result<Message> message = decode_message(payload);
  if (!message) {
    lose(from, message.error(), now);
    return;
  }
  metrics_.message_received(*message);
  Peer& peer = *peers_.find(from);
  peer.last_heard = now;
  if (!peer.up) bring_up(from, now);
  std::visit([&](auto& m) { dispatch(from, m, now); }, *message);
}

// --- actions ------------------------------------------------------------------------------------

void Driver::run(TimePoint now) {
  if (std::exchange(running_, true)) return;
  while (!source_actions_.empty() || !sink_actions_.empty()) {
    SourceActions source_actions = std::exchange(source_actions_, {});
    SinkActions sink_actions = std::exchange(sink_actions_, {});
    for (SourceAction& action : source_actions) {
      std::visit([&](auto& a) { execute(a, now); }, action);
    }
    for (SinkAction& action : sink_actions) {
      std::visit([&](auto& a) { execute(a, now); }, action);
    }
  }
  running_ = false;
}

void Driver::execute(SendMessage& action, TimePoint now) {
  Peer* peer = peers_.find(action.to);
  if (peer == nullptr) return;  // lost meanwhile, which the machines know
  metrics_.message_sent(action.message);
  std::string payload = encode(action.message);
  if (peer->up) {
    send_now(action.to, payload, now);
  } else if (peer->unsent.size() < kMaxUnsent) {
    peer->unsent.push_back(std::move(payload));
  } else {
    lose(action.to, error(Errc::kResourceExhausted, "it does not answer"), now);
  }
}

void Driver::send_now(WorkerId to, const std::string& payload, TimePoint now) {
  Peer* peer = peers_.find(to);
  if (peer == nullptr) return;
  peer->last_sent = now;
  const status sent = transport_->notify(peer->connection, std::as_bytes(std::span(payload)));
  if (!sent) lose(to, sent.error(), now);
}

void Driver::execute(SourceReleased& action, TimePoint) {
  metrics_.ended("source", "released");
  listener_.source_released(action);
}

void Driver::execute(SourceFailed& action, TimePoint) {
  metrics_.ended("source", baton::name(action.error.code));
  if (action.error.code != Errc::kCancelled) {
    LOG_WARN("hand-off {} failed here at its source: {}", to_string(action.key),
             action.error.message);
  }
  listener_.source_failed(action);
}

void Driver::execute(SinkRefused& action, TimePoint) {
  listener_.source_refused(action.key, action.retry_after);
}

void Driver::execute(SinkLost& action, TimePoint) {
  LOG_INFO("hand-off {} lost its sink: {}", to_string(action.key), action.error.message);
  listener_.source_sink_lost(action.key, action.error);
}

void Driver::execute(StartRead& action, TimePoint) { pending_reads_.push_back(std::move(action)); }

void Driver::execute(Joined& action, TimePoint) {
  metrics_.joined(action.timings);
  listener_.joined(action);
}

void Driver::execute(SinkFailed& action, TimePoint) {
  metrics_.ended("sink", baton::name(action.error.code));
  if (action.error.code != Errc::kCancelled) {
    LOG_WARN("hand-off {} failed here at its sink: {}", to_string(action.key),
             action.error.message);
  }
  listener_.sink_failed(action.key, action.error);
}

void Driver::execute(SinkReleased& action, TimePoint) {
  listener_.sink_released(action.key, action.blocks);
}

void Driver::execute(DigestMismatch& action, TimePoint) {
  metrics_.digest_mismatches.Increment();
  LOG_WARN(
      "hand-off {}: layers {}..{} of tokens {}..{} from worker {:x}: digest {:016x} announced, "
      "{:016x} read; {}",
      to_string(action.key), action.range.layer_begin, action.range.layer_end,
      action.range.token_begin, action.range.token_end, action.source.value, action.announced,
      action.read, action.again ? "reading again" : "giving up");
}

// --- reads --------------------------------------------------------------------------------------

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

}  // namespace

result<std::unique_ptr<HandoffDriver>> HandoffDriver::create(const HandoffConfig& config,
                                                             std::unique_ptr<Transport> transport,
                                                             HandoffListener& listener,
                                                             Metrics* metrics) {
  BATON_CHECK_OK(config.layout.validate());
  if (config.worker.value == 0 || config.num_blocks == 0) {
    return error(Errc::kInvalidArgument, "hand-off: a worker id and at least one block are needed");
  }
  BATON_TRY(const std::span<std::byte> cache,
            transport->allocate(config.num_blocks * config.layout.block_bytes()));
  std::unique_ptr<Metrics> own;
  if (metrics == nullptr) own = std::make_unique<Metrics>();
  Metrics& in_use = metrics != nullptr ? *metrics : *own;
  return std::unique_ptr<HandoffDriver>(std::make_unique<Driver>(
      config, std::move(transport), cache, listener, std::move(own), in_use));
}

}  // namespace baton::kvtransfer
