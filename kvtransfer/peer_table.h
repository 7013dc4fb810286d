#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "kvtransfer/compat.h"
#include "kvtransfer/device_reads.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/sink.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

// A paired worker as the driver sees it.
struct Peer {
  WorkerId worker;
  PeerId connection;
  ReadAs read_as = ReadAs::kPieces;
  std::optional<DeviceMapId> device;  // its cache in a GPU's memory, mapped here
  Pairing pairing;
  std::string transport;           // in force
  bool up = false;                 // it has sent something: it knows us, and may be sent to
  std::deque<std::string> unsent;  // until then
  TimePoint last_heard, last_sent;
};

// The paired workers, found by worker and by connection.
class PeerTable {
 public:
  Peer& add(Peer peer) {
    by_connection_[peer.connection] = peer.worker;
    return by_worker_.insert_or_assign(peer.worker, std::move(peer)).first->second;
  }
  Peer* find(WorkerId worker) {
    const auto it = by_worker_.find(worker);
    return it == by_worker_.end() ? nullptr : &it->second;
  }
  const Peer* find(WorkerId worker) const { return const_cast<PeerTable*>(this)->find(worker); }
  Peer* find(PeerId connection) {
    const auto it = by_connection_.find(connection);
    return it == by_connection_.end() ? nullptr : find(it->second);
  }
  void remove(WorkerId worker) {
    const auto it = by_worker_.find(worker);
    by_connection_.erase(it->second.connection);
    by_worker_.erase(it);
  }
  std::vector<WorkerId> workers() const {
    std::vector<WorkerId> all;
    for (const auto& [worker, peer] : by_worker_) all.push_back(worker);
    return all;
  }
  bool empty() const { return by_worker_.empty(); }

 private:
  std::map<WorkerId, Peer> by_worker_;
  std::map<PeerId, WorkerId> by_connection_;
};

}  // namespace baton::kvtransfer
