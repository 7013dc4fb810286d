#include "kvtransfer/handoff_driver.h"

#include <utility>

#include "kvtransfer/codec.h"
#include "kvtransfer/handoff_driver_impl.h"

namespace baton::kvtransfer {
namespace {

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
          .window_reads = c.window_reads,
          .turns_read_bytes = kMaxReadBytes,
          .turns_window_reads = c.turns_window_reads,
          .turns_window_segments = kMaxReadRanges};
}

}  // namespace

Driver::Driver(const HandoffConfig& config, std::unique_ptr<Transport> transport,
               std::span<std::byte> cache, HandoffListener& listener, std::unique_ptr<Metrics> own,
               Metrics& metrics, std::unique_ptr<DeviceReads> device)
    : config_(config),
      transport_(std::move(transport)),
      device_(std::move(device)),
      cache_(cache),
      listener_(listener),
      own_metrics_(std::move(own)),
      metrics_(metrics),
      source_(source_config(config)),
      sink_(sink_config(config)),
      link_(config.link) {
  hello_.protocol_max = config.protocol_max;
  hello_.worker = config.worker;
  hello_.layout = config.layout;
  if (config.layout.num_shards() > 1) hello_.protocol_min = kProtocolShards;
  hello_.model_key = config.model_key;
  hello_.numerics = config.numerics;
  Endpoint endpoint = transport_->endpoint();
  if (device_) {
    hello_.protocol_min = kProtocolDevice;
    endpoint.region.base = endpoint.region.bytes = 0;  // what the transport has is no cache
    endpoint.device = device_->region();
  }
  const uint64_t bytes = device_ ? endpoint.device.bytes : endpoint.region.bytes;
  hello_.ranks = {{config.layout.head_begin, bytes == 0 ? 0 : config.num_blocks, endpoint}};
}

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
  if (device_) poll_device(now);
  source_.announce_ready(source_actions_);
  source_.tick(now, source_actions_);
  sink_.tick(now, sink_actions_);
  if (next_heartbeat_ <= now) heartbeat(now);
  run(now);
  start_reads(now);
  return more || may_start_reads();
}

void Driver::on_event(const TransportEvent& event, TimePoint now) {
  using Kind = TransportEvent::Kind;
  const Peer* peer = peers_.find(event.peer);
  switch (event.kind) {
    case Kind::kMessage:
      if (peer != nullptr) on_message(peer->worker, event.payload, now);
      return;
    case Kind::kGetProgress:
      on_get_progress(event);
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
  if (peers_.find(from) == nullptr) return;  // lost as it was answered
  std::visit([&](auto& m) { dispatch(from, m, now); }, *message);
}

result<std::unique_ptr<HandoffDriver>> HandoffDriver::create(
    const HandoffConfig& config, std::unique_ptr<Transport> transport, HandoffListener& listener,
    Metrics* metrics, std::unique_ptr<DeviceReads> device_reads) {
  BATON_CHECK_OK(config.layout.validate());
  if (config.worker.value == 0 || config.num_blocks == 0) {
    return error(Errc::kInvalidArgument, "hand-off: a worker id and at least one block are needed");
  }
  const bool on_device = device_reads != nullptr;
  BATON_TRY(std::span<std::byte> cache,
            transport->allocate(on_device ? 1 : config.num_blocks * config.layout.block_bytes(),
                                config.sharing));
  if (on_device) cache = {};
  std::unique_ptr<Metrics> own;
  if (metrics == nullptr) own = std::make_unique<Metrics>();
  Metrics& in_use = metrics != nullptr ? *metrics : *own;
  auto driver = std::make_unique<Driver>(config, std::move(transport), cache, listener,
                                         std::move(own), in_use, std::move(device_reads));
  if (on_device) BATON_CHECK_OK(driver->watch_device());
  return std::unique_ptr<HandoffDriver>(std::move(driver));
}

}  // namespace baton::kvtransfer
