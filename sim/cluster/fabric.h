#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/latency/fair_links.h"
#include "kvtransfer/transport.h"
#include "sim/timeline.h"

namespace baton::sim {

using latency::FairLinks;
using latency::FlowId;
using latency::GroupId;
using latency::LinkId;

// How a worker is connected to the others. Workers may share links: a NIC, a node's.
struct NodeLinks {
  LinkId out, in;
  Duration read_latency{};  // of a read, beside the time that its bytes take
};

// The network between workers in virtual time: messages arrive after a latency, and reads share
// links (FairLinks). A read crosses the owner's way out, the spine, and the reader's way in; all
// reads of one pair are one connection. No byte is copied: memory is never touched, so that a cache
// of any size costs nothing, and a byte of it stands for `scale` bytes on the links.
class Fabric {
 public:
  Fabric(Timeline& timeline, Duration message_latency, double scale)
      : timeline_(timeline), message_latency_(message_latency), scale_(scale) {}

  LinkId add_link(double bytes_per_second) { return links_.add_link(bytes_per_second); }
  // All reads between workers with different links cross it.
  void set_spine(LinkId spine) {
    spine_ = spine;
    has_spine_ = true;
  }

  // One worker's. `arrived` is called when its poll() has something. The fabric outlives it; its
  // destruction is the worker's death: reads of it fail, messages to it are lost.
  std::unique_ptr<kvtransfer::Transport> make_transport(const NodeLinks& links,
                                                        std::function<void()> arrived);

  const FairLinks& links() const { return links_; }
  uint64_t reads() const { return reads_; }
  double read_bytes() const { return read_bytes_; }  // scaled, of reads that were started

 private:
  friend class FabricTransport;
  struct Node {
    NodeLinks links;
    std::function<void()> arrived;
    bool alive = true;
    kvtransfer::Endpoint endpoint;
    std::map<kvtransfer::PeerId, uint32_t> remotes;
    std::unordered_map<uint32_t, kvtransfer::PeerId> peers;  // the same, by node
    std::vector<kvtransfer::TransportEvent> inbox;
    uint64_t dropped = 0;
  };
  struct Get {
    uint32_t reader = 0, owner = 0;
    kvtransfer::PeerId peer;
    uint64_t cookie = 0;
    double bytes = 0;
    FlowId flow;  // none while the request travels
  };

  uint32_t add_node(const NodeLinks& links, std::function<void()> arrived);
  result<kvtransfer::PeerId> connect(uint32_t node, const kvtransfer::Endpoint& remote);
  result<bool> get(uint32_t node, kvtransfer::PeerId peer, double bytes, uint64_t cookie);
  status notify(uint32_t node, kvtransfer::PeerId peer, std::span<const std::byte> payload);
  void close(uint32_t node, kvtransfer::PeerId peer);
  void give_up(uint32_t node, kvtransfer::PeerId peer, uint64_t cookie);
  void died(uint32_t node);
  void start_flow(uint64_t get);
  void end_gets(const std::function<bool(const Get&)>& which);
  void deliver(uint32_t node, kvtransfer::TransportEvent event);
  void catch_up();
  void flows_changed();
  void finish(const std::vector<FlowId>& flows);

  Timeline& timeline_;
  const Duration message_latency_;
  const double scale_;
  FairLinks links_;
  LinkId spine_;
  bool has_spine_ = false;
  std::vector<Node> nodes_;
  std::map<uint64_t, Get> gets_;                // by number, in the order in which they were asked
  std::unordered_map<FlowId, uint64_t> flows_;  // to gets
  uint64_t next_get_ = 1, next_peer_ = 1;
  TimePoint alarm_ = TimePoint::max();  // when the timeline is to look at the flows again
  uint64_t alarms_ = 0;
  std::vector<FlowId> ended_;  // scratch
  uint64_t reads_ = 0;
  double read_bytes_ = 0;
};

}  // namespace baton::sim
