#include "sim/cluster/fabric.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "kvtransfer/wire_read.h"

namespace baton::sim {

using kvtransfer::Endpoint;
using kvtransfer::GetOp;
using kvtransfer::PeerId;
using kvtransfer::TransportEvent;
using Kind = TransportEvent::Kind;

class FabricTransport final : public kvtransfer::Transport {
 public:
  FabricTransport(Fabric& fabric, uint32_t node) : fabric_(fabric), node_(node) {}
  ~FabricTransport() override {
    fabric_.died(node_);
    if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
  }

  // Addresses without memory, until somebody touches them.
  result<std::span<std::byte>> allocate(size_t bytes, kvtransfer::Sharing) override {
    void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      return error(Errc::kResourceExhausted, fmt::format("no addresses for {} bytes", bytes));
    }
    memory_ = {static_cast<std::byte*>(at), bytes};
    fabric_.nodes_[node_].endpoint.region = {reinterpret_cast<uint64_t>(at), bytes, "sim"};
    return memory_;
  }
  const Endpoint& endpoint() const override { return fabric_.nodes_[node_].endpoint; }
  result<PeerId> connect(const Endpoint& remote, std::string_view) override {
    return fabric_.connect(node_, remote);
  }
  result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                   kvtransfer::Answer) override {
    double bytes = 0;
    for (const GetOp& op : ops) bytes += static_cast<double>(op.total_bytes());
    return fabric_.get(node_, peer, bytes, cookie);
  }
  void give_up(PeerId peer, uint64_t cookie) override { fabric_.give_up(node_, peer, cookie); }
  std::span<const std::byte> mapped(PeerId) const override { return {}; }
  status notify(PeerId peer, std::span<const std::byte> payload) override {
    return fabric_.notify(node_, peer, payload);
  }
  void close(PeerId peer) override { fabric_.close(node_, peer); }
  bool poll(std::vector<TransportEvent>& events) override {
    std::ranges::move(fabric_.nodes_[node_].inbox, std::back_inserter(events));
    fabric_.nodes_[node_].inbox.clear();
    return false;
  }
  int event_fd() const override { return -1; }
  result<bool> arm() override { return fabric_.nodes_[node_].inbox.empty(); }
  std::string in_force(PeerId) const override { return "sim"; }
  uint64_t dropped_messages() const override { return fabric_.nodes_[node_].dropped; }

 private:
  Fabric& fabric_;
  const uint32_t node_;
  std::span<std::byte> memory_;
};

std::unique_ptr<kvtransfer::Transport> Fabric::make_transport(const NodeLinks& links,
                                                              std::function<void()> arrived) {
  return std::make_unique<FabricTransport>(*this, add_node(links, std::move(arrived)));
}

uint32_t Fabric::add_node(const NodeLinks& links, std::function<void()> arrived) {
  const auto id = static_cast<uint32_t>(nodes_.size());
  Node& node = nodes_.emplace_back();
  node.links = links;
  node.arrived = std::move(arrived);
  node.endpoint.address = std::to_string(id);
  return id;
}

result<PeerId> Fabric::connect(uint32_t node, const Endpoint& remote) {
  const auto to = static_cast<uint32_t>(std::strtoul(remote.address.c_str(), nullptr, 10));
  if (to >= nodes_.size() || to == node) {
    return error(Errc::kInvalidArgument, fmt::format("no node '{}'", remote.address));
  }
  const PeerId peer{next_peer_++};
  nodes_[node].remotes[peer] = to;
  nodes_[node].peers[to] = peer;
  return peer;
}

status Fabric::notify(uint32_t node, PeerId peer, std::span<const std::byte> payload) {
  const auto remote = nodes_[node].remotes.find(peer);
  if (remote == nodes_[node].remotes.end()) {
    return error(Errc::kInvalidArgument, "notify: unknown peer");
  }
  TransportEvent event{Kind::kMessage, {}, 0, {payload.begin(), payload.end()}, {}};
  timeline_.after(message_latency_,
                  [this, from = node, to = remote->second, event = std::move(event)]() mutable {
                    const auto known = nodes_[to].peers.find(from);
                    if (known == nodes_[to].peers.end()) {
                      ++nodes_[to].dropped;
                      return;
                    }
                    event.peer = known->second;
                    deliver(to, std::move(event));
                  });
  return {};
}

void Fabric::deliver(uint32_t node, TransportEvent event) {
  if (!nodes_[node].alive) return;
  nodes_[node].inbox.push_back(std::move(event));
  nodes_[node].arrived();
}

// --- reads ---------------------------------------------------------------------------------------

result<bool> Fabric::get(uint32_t node, PeerId peer, double bytes, uint64_t cookie) {
  const auto remote = nodes_[node].remotes.find(peer);
  if (remote == nodes_[node].remotes.end()) {
    return error(Errc::kInvalidArgument, "get: unknown peer");
  }
  if (!nodes_[remote->second].alive) return error(Errc::kUnavailable, "get: the peer is gone");
  const uint64_t id = next_get_++;
  gets_[id] = {node, remote->second, peer, cookie, bytes * scale_, {}};
  ++reads_;
  read_bytes_ += bytes * scale_;
  timeline_.after(nodes_[node].links.read_latency, [this, id] { start_flow(id); });
  return false;
}

void Fabric::start_flow(uint64_t id) {
  const auto it = gets_.find(id);
  if (it == gets_.end()) return;  // closed meanwhile
  Get& get = it->second;
  const NodeLinks &owner = nodes_[get.owner].links, &reader = nodes_[get.reader].links;
  std::vector<LinkId> path{owner.out};
  if (has_spine_ && owner.out != reader.out) path.push_back(spine_);
  path.push_back(reader.in);
  catch_up();
  get.flow = links_.start(GroupId(uint64_t{get.reader} << 32 | get.owner), path, get.bytes);
  flows_[get.flow] = id;
  flows_changed();
}

// The flows move up to now; those that are through end.
void Fabric::catch_up() {
  while (links_.now() < timeline_.now()) {
    ended_.clear();
    links_.advance(std::min(timeline_.now(), links_.next_end()), ended_);
    finish(ended_);
  }
}

void Fabric::flows_changed() {
  if (links_.next_end() == alarm_) return;
  alarm_ = links_.next_end();
  const uint64_t alarm = ++alarms_;
  if (alarm_ == TimePoint::max()) return;
  timeline_.at(alarm_, [this, alarm] {
    if (alarm != alarms_) return;  // the flows have changed since
    alarm_ = TimePoint::max();
    catch_up();
    flows_changed();
  });
}

void Fabric::finish(const std::vector<FlowId>& flows) {
  for (const FlowId flow : flows) {
    const auto id = flows_.extract(flow);
    const auto get = gets_.extract(id.mapped());
    const Get& g = get.mapped();
    deliver(g.reader, {Kind::kGetDone, g.peer, g.cookie, {}, {}});
  }
}

void Fabric::end_gets(const std::function<bool(const Get&)>& which) {
  catch_up();
  for (auto it = gets_.begin(); it != gets_.end();) {
    const Get get = it->second;
    if (!which(get)) {
      ++it;
      continue;
    }
    it = gets_.erase(it);
    if (get.flow != FlowId{}) {
      flows_.erase(get.flow);
      links_.cancel(get.flow);
    }
    deliver(get.reader, {Kind::kGetFailed, get.peer, get.cookie, {}, "given up"});
  }
  flows_changed();
}

void Fabric::close(uint32_t node, PeerId peer) {
  const auto remote = nodes_[node].remotes.find(peer);
  if (remote == nodes_[node].remotes.end()) return;
  end_gets([&](const Get& g) { return g.reader == node && g.peer == peer; });
  const auto known = nodes_[node].peers.find(remote->second);
  if (known != nodes_[node].peers.end() && known->second == peer) nodes_[node].peers.erase(known);
  nodes_[node].remotes.erase(peer);
  deliver(node, {Kind::kClosed, peer, 0, {}, {}});
}

void Fabric::give_up(uint32_t node, PeerId peer, uint64_t cookie) {
  end_gets([&](const Get& g) { return g.reader == node && g.peer == peer && g.cookie == cookie; });
}

void Fabric::died(uint32_t node) {
  nodes_[node].alive = false;
  nodes_[node].inbox.clear();
  end_gets([node](const Get& g) { return g.reader == node || g.owner == node; });
}

}  // namespace baton::sim
