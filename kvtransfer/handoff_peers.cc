#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/handoff_driver_impl.h"

// Whom the driver is paired with.
namespace baton::kvtransfer {

status Driver::add_peer(const Hello& theirs, TimePoint now) {
  BATON_TRY(const Pairing pairing, pair(hello_, theirs));
  if (Peer* known = peers_.find(theirs.worker)) {
    known->last_heard = now;
    return {};
  }
  const Rank& rank = theirs.ranks[0];
  const std::string who = fmt::format("worker {:x}", theirs.worker.value);
  std::optional<DeviceMapId> device;
  if (device_ && rank.endpoint.device.bytes > 0) {
    BATON_TRY(device, device_->map(rank.endpoint.device, who));
  }
  const result<PeerId> connected = transport_->connect(rank.endpoint, who);
  if (!connected) {
    if (device) device_->unmap(*device);
    return connected.error();
  }
  const ReadAs read_as = how_to_read(theirs.layout, pairing, *connected);
  Peer& peer = peers_.add({.worker = theirs.worker,
                           .connection = *connected,
                           .read_as = read_as,
                           .device = device,
                           .pairing = pairing,
                           .last_heard = now});
  peer.transport = in_force(peer);
  sink_.add_source(theirs.worker, theirs.layout, rank.num_blocks, read_as);
  next_heartbeat_ = std::min(next_heartbeat_, now + config_.heartbeat_every);
  send_now(theirs.worker, encode(Lease{}), now);
  run(now);
  if (peers_.find(theirs.worker) != nullptr) return {};
  return error(Errc::kUnavailable, who + " takes no message");
}

// What is the same bytes on both sides, and lies in memory that is mapped here, is copied here.
ReadAs Driver::how_to_read(const kvcache::KvLayout& theirs, const Pairing& pairing,
                           PeerId connection) const {
  if (!lie_alike(theirs, config_.layout)) return ReadAs::kPieces;
  if (!device_ && !transport_->mapped(connection).empty()) return ReadAs::kCopied;
  return pairing.protocol >= kProtocolTurns ? ReadAs::kTurns : ReadAs::kPieces;
}

std::string Driver::in_force(const Peer& peer) const {
  if (!device_) return transport_->in_force(peer.connection);
  return peer.device ? std::string(device_->name()) : "none";
}

// It has sent something, so it knows us: what waited can go.
void Driver::bring_up(WorkerId worker, TimePoint now) {
  Peer& peer = *peers_.find(worker);
  peer.up = true;
  peer.transport = in_force(peer);
  const std::string transport = peer.transport;
  const std::deque<std::string> unsent = std::exchange(peer.unsent, {});
  LOG_INFO("paired with worker {:x}: {}", worker.value,
           transport == "none" ? "it is not read" : "reads travel over " + transport);
  metrics_.peer_up(worker, transport);
  send_now(worker, encode(Lease{}), now);  // so that it knows that we know it
  for (const std::string& payload : unsent) send_now(worker, payload, now);
  if (peers_.find(worker) != nullptr) listener_.peer_up(worker, transport);
}

void Driver::remove_peer(WorkerId worker, TimePoint now) {
  if (peers_.find(worker) != nullptr) LOG_INFO("worker {:x} has left", worker.value);
  drop(worker, error(Errc::kUnavailable, "removed"), now);
  run(now);
}

void Driver::lose(WorkerId worker, Error why, TimePoint now) {
  if (peers_.find(worker) != nullptr) LOG_WARN("lost worker {:x}: {}", worker.value, why.message);
  drop(worker, why, now);
}

void Driver::drop(WorkerId worker, const Error& why, TimePoint now) {
  const Peer* peer = peers_.find(worker);
  if (peer == nullptr) return;
  transport_->close(peer->connection);
  if (peer->device) device_->unmap(*peer->device);
  metrics_.peer_gone(worker);
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
  next_heartbeat_ = peers_.empty() ? TimePoint::max() : now + config_.heartbeat_every;
}

}  // namespace baton::kvtransfer
