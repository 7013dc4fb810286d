#include "kvtransfer/loopback_transport.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "kvtransfer/host_buffer.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/wire_read.h"

namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;

struct Link {
  uint32_t remote = 0;  // node
  std::string life;     // of that node: see Node
};

// One process. Its memory lives as long as the hub: a late reader of a dead process is no crash.
struct Node {
  Endpoint endpoint;
  HostBuffer memory;
  bool alive = true;
  uint32_t lives = 1;  // processes that were here; the key of its memory is as new as the process
  std::set<uint64_t> damaged;  // bytes that readers see otherwise
  std::map<PeerId, Link> links;

  const std::string& life() const { return endpoint.region.key; }
  std::vector<TransportEvent> inbox;
  int wake = -1;  // eventfd, readable while the inbox is not empty
  uint64_t dropped = 0;
};

struct PendingGet {
  Stream<GetOp> stream;
  uint64_t turn_bytes = UINT64_MAX;
  bool fails = false, given_up = false;
  uint64_t corrupts = UINT64_MAX, torn = UINT64_MAX;  // which byte, and from which one on
  uint64_t copied = 0;
};

// Something that becomes visible at `node` later.
struct Delayed {
  uint32_t node = 0;
  TransportEvent event;
  std::optional<PendingGet> get;
  std::string life;  // of a message: the sender's
};

class Hub final : public LoopbackHub {
 public:
  explicit Hub(uint64_t seed) : random_(seed) {}
  ~Hub() override {
    for (auto& [id, node] : nodes_) ::close(node.wake);
  }

  std::unique_ptr<Transport> make_transport(std::string host) override;
  std::unique_ptr<Transport> make_transport_at(const Endpoint& former) override;

  void set_faults(const LoopbackFaults& faults) override {
    const std::lock_guard lock(mutex_);
    faults_ = faults;
  }
  void advance(TimePoint now) override {
    const std::lock_guard lock(mutex_);
    while (!delayed_.empty() && delayed_.begin()->first.first <= now) {
      now_ = std::max(now_, delayed_.begin()->first.first);
      Delayed next = std::move(delayed_.begin()->second);
      delayed_.erase(delayed_.begin());
      happen(std::move(next));
    }
    now_ = std::max(now_, now);
  }
  TimePoint next_event() const override {
    const std::lock_guard lock(mutex_);
    return delayed_.empty() ? TimePoint::max() : delayed_.begin()->first.first;
  }
  void kill(const Endpoint& endpoint, bool reported) override {
    const std::lock_guard lock(mutex_);
    kill(node_of(endpoint.address), reported);
  }
  void cut(const Endpoint& a, const Endpoint& b, bool cut) override {
    const std::lock_guard lock(mutex_);
    const std::pair<uint32_t, uint32_t> pair =
        std::minmax({node_of(a.address), node_of(b.address)});
    cut ? (void)cuts_.insert(pair) : (void)cuts_.erase(pair);
    if (!cut) resume_reads();
  }
  void damage(const Endpoint& endpoint, uint64_t offset, bool damaged) override {
    const std::lock_guard lock(mutex_);
    std::set<uint64_t>& bytes = nodes_.at(node_of(endpoint.address)).damaged;
    damaged ? (void)bytes.insert(offset) : (void)bytes.erase(offset);
  }
  LoopbackCounts counts() const override {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

  // --- for the transports, by node id ---
  result<std::span<std::byte>> allocate(uint32_t id, size_t bytes, Sharing sharing);
  const Endpoint& endpoint(uint32_t id) { return nodes_.at(id).endpoint; }
  result<PeerId> connect(uint32_t id, const Endpoint& remote);
  result<bool> get(uint32_t id, PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                   Answer answer);
  void give_up(uint32_t id, PeerId peer, uint64_t cookie);
  std::span<const std::byte> mapped(uint32_t id, PeerId peer);
  status notify(uint32_t id, PeerId peer, std::span<const std::byte> payload);
  void close(uint32_t id, PeerId peer);
  bool poll(uint32_t id, std::vector<TransportEvent>& events);
  int event_fd(uint32_t id) { return nodes_.at(id).wake; }
  bool idle(uint32_t id) {
    const std::lock_guard lock(mutex_);
    return nodes_.at(id).inbox.empty();
  }
  uint64_t dropped(uint32_t id) {
    const std::lock_guard lock(mutex_);
    return nodes_.at(id).dropped;
  }
  void destroyed(uint32_t id) {
    const std::lock_guard lock(mutex_);
    kill(id, false);
  }

 private:
  uint32_t node_of(const std::string& address) const {
    return static_cast<uint32_t>(std::strtoul(address.c_str(), nullptr, 10));
  }
  bool chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p; }
  Duration up_to(Duration d) {
    if (d <= Duration::zero()) return {};
    return Duration(std::uniform_int_distribution<int64_t>(0, d.count())(random_));
  }
  bool is_cut(uint32_t a, uint32_t b) const { return cuts_.contains(std::minmax(a, b)); }

  void kill(uint32_t id, bool reported);
  void resume_reads();
  void deliver(Node& node, TransportEvent event);
  void later(Duration delay, Delayed what);
  void happen(Delayed what);
  void send(const Node& from, uint32_t from_id, uint32_t to, std::vector<std::byte> payload);
  void go_on(Node& node, Delayed what);
  void copy_turn(const Node& remote, PendingGet& get);
  bool lives(const Link& link) const {
    const Node& remote = nodes_.at(link.remote);
    return remote.alive && remote.life() == link.life;
  }

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  LoopbackFaults faults_;
  TimePoint now_{};
  std::map<uint32_t, Node> nodes_;
  std::vector<HostBuffer> graves_;  // memory of the dead whose place was taken
  LoopbackCounts counts_;
  uint32_t next_node_ = 1;
  uint64_t next_peer_ = 1, next_delayed_ = 1;
  std::map<std::pair<TimePoint, uint64_t>, Delayed> delayed_;
  std::set<std::pair<uint32_t, uint32_t>> cuts_;
};

class LoopbackTransport final : public Transport {
 public:
  LoopbackTransport(Hub& hub, uint32_t id) : hub_(hub), id_(id) {}
  ~LoopbackTransport() override { hub_.destroyed(id_); }

  result<std::span<std::byte>> allocate(size_t bytes, Sharing sharing) override {
    return hub_.allocate(id_, bytes, sharing);
  }
  const Endpoint& endpoint() const override { return hub_.endpoint(id_); }
  result<PeerId> connect(const Endpoint& remote, std::string_view) override {
    return hub_.connect(id_, remote);
  }
  result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                   Answer answer) override {
    return hub_.get(id_, peer, ops, cookie, answer);
  }
  void give_up(PeerId peer, uint64_t cookie) override { hub_.give_up(id_, peer, cookie); }
  std::span<const std::byte> mapped(PeerId peer) const override { return hub_.mapped(id_, peer); }
  status notify(PeerId peer, std::span<const std::byte> payload) override {
    return hub_.notify(id_, peer, payload);
  }
  void close(PeerId peer) override { hub_.close(id_, peer); }
  bool poll(std::vector<TransportEvent>& events) override { return hub_.poll(id_, events); }
  int event_fd() const override { return hub_.event_fd(id_); }
  result<bool> arm() override { return hub_.idle(id_); }
  std::string in_force(PeerId) const override { return "loopback"; }
  uint64_t dropped_messages() const override { return hub_.dropped(id_); }

 private:
  Hub& hub_;
  const uint32_t id_;
};

std::unique_ptr<Transport> Hub::make_transport(std::string host) {
  const std::lock_guard lock(mutex_);
  const uint32_t id = next_node_++;
  Node& node = nodes_[id];
  node.endpoint.address = std::to_string(id);
  node.endpoint.host = std::move(host);
  node.wake = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return std::make_unique<LoopbackTransport>(*this, id);
}

std::unique_ptr<Transport> Hub::make_transport_at(const Endpoint& former) {
  const std::lock_guard lock(mutex_);
  const uint32_t id = node_of(former.address);
  Node& node = nodes_.at(id);
  assert(!node.alive);
  graves_.push_back(std::move(node.memory));
  node.alive = true;
  ++node.lives;
  node.damaged.clear();
  node.links.clear();
  node.inbox.clear();
  std::erase_if(delayed_, [id](const auto& entry) { return entry.second.node == id; });
  return std::make_unique<LoopbackTransport>(*this, id);
}

result<std::span<std::byte>> Hub::allocate(uint32_t id, size_t bytes, Sharing sharing) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_.at(id);
  BATON_TRY(node.memory, allocate_host_buffer(bytes, sharing));
  node.endpoint.region = {reinterpret_cast<uint64_t>(node.memory.get()), bytes,
                          fmt::format("loopback life {}", node.lives)};
  return std::span(node.memory.get(), bytes);
}

result<PeerId> Hub::connect(uint32_t id, const Endpoint& remote) {
  const std::lock_guard lock(mutex_);
  const uint32_t to = node_of(remote.address);
  if (!nodes_.contains(to) || to == id) {
    return error(Errc::kInvalidArgument, fmt::format("no loopback node '{}'", remote.address));
  }
  const PeerId peer{next_peer_++};
  nodes_.at(id).links[peer] = {to, remote.region.key};
  return peer;
}

void Hub::copy_turn(const Node& remote, PendingGet& get) {
  const uint64_t n = std::min(get.turn_bytes, get.stream.bytes() - get.copied);
  get.stream.walk(
      get.copied, n, [&](const GetOp& op, uint64_t piece, uint64_t within, uint64_t bytes) {
        const uint64_t whole = get.torn > get.copied ? std::min(bytes, get.torn - get.copied) : 0;
        const uint64_t from = op.remote_offset + piece * op.remote_stride + within;
        std::byte* to = op.local + piece * op.local_stride + within;
        std::memcpy(to, remote.memory.get() + from, whole);
        for (auto it = remote.damaged.lower_bound(from);
             it != remote.damaged.end() && *it < from + whole; ++it) {
          to[*it - from] ^= std::byte{0x10};
        }
        if (get.corrupts >= get.copied && get.corrupts - get.copied < bytes) {
          to[get.corrupts - get.copied] ^= std::byte{1} << (random_() % 8);
        }
        get.copied += bytes;
      });
}

result<bool> Hub::get(uint32_t id, PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                      Answer answer) {
  const std::lock_guard lock(mutex_);
  const Node& node = nodes_.at(id);
  const auto link = node.links.find(peer);
  if (link == node.links.end()) return error(Errc::kInvalidArgument, "get: unknown peer");
  const Node& remote = nodes_.at(link->second.remote);
  for (const GetOp& op : ops) {
    if (!lies_within(op.remote_offset, op.bytes, op.count, op.remote_stride,
                     remote.endpoint.region.bytes)) {
      return error(Errc::kInvalidArgument, "get: outside the peer's region");
    }
  }
  PendingGet get{.stream = Stream<GetOp>({ops.begin(), ops.end()}),
                 .fails = chance(faults_.fail_get)};
  if (answer == Answer::kInTurns) get.turn_bytes = faults_.turn_bytes;
  if (chance(faults_.corrupt_get)) get.corrupts = random_() % get.stream.bytes();
  if (chance(faults_.torn_get)) get.torn = get.stream.bytes() / 2;
  counts_.failed_gets += get.fails;
  counts_.corrupted_gets += get.corrupts != UINT64_MAX;
  counts_.torn_gets += get.torn != UINT64_MAX;
  get.fails |= !lives(link->second);
  if (faults_.get_delay == Duration::zero() && !get.fails && !is_cut(id, link->second.remote)) {
    while (get.copied < get.stream.bytes()) copy_turn(remote, get);
    return true;
  }
  ++counts_.late_gets;
  later(up_to(faults_.get_delay), {id, {Kind::kGetDone, peer, cookie}, std::move(get), {}});
  return false;
}

// What is on its way still arrives.
void Hub::give_up(uint32_t id, PeerId peer, uint64_t cookie) {
  const std::lock_guard lock(mutex_);
  for (auto& [when, what] : delayed_) {
    if (what.node == id && what.event.peer == peer && what.event.cookie == cookie && what.get) {
      what.get->given_up = true;
    }
  }
}

std::span<const std::byte> Hub::mapped(uint32_t id, PeerId peer) {
  const std::lock_guard lock(mutex_);
  const auto& links = nodes_.at(id).links;
  const auto link = links.find(peer);
  if (!faults_.mapped || link == links.end()) return {};
  const Node& remote = nodes_.at(link->second.remote);
  return {remote.memory.get(), remote.endpoint.region.bytes};
}

status Hub::notify(uint32_t id, PeerId peer, std::span<const std::byte> payload) {
  const std::lock_guard lock(mutex_);
  if (payload.size() > kMaxMessageBytes) {
    return error(Errc::kInvalidArgument, fmt::format("notify: {} bytes", payload.size()));
  }
  const Node& node = nodes_.at(id);
  const auto link = node.links.find(peer);
  if (link == node.links.end()) return error(Errc::kInvalidArgument, "notify: unknown peer");
  const uint32_t to = link->second.remote;
  if (!node.alive || is_cut(id, to) || !lives(link->second)) return {};
  if (chance(faults_.drop_message)) {
    ++counts_.dropped;
    return {};
  }
  const bool doubled = chance(faults_.duplicate_message);
  counts_.doubled += doubled;
  for (int i = 0; i < (doubled ? 2 : 1); ++i) {
    send(node, id, to, {payload.begin(), payload.end()});
  }
  return {};
}

// The sender is named by its node until it arrives: only then is it known how the receiver calls
// it.
void Hub::send(const Node& from, uint32_t from_id, uint32_t to, std::vector<std::byte> payload) {
  const Duration delay = up_to(faults_.message_delay);
  counts_.delayed += delay > Duration::zero();
  later(delay, {to, {Kind::kMessage, PeerId{from_id}, 0, std::move(payload), {}}, {}, from.life()});
}

void Hub::close(uint32_t id, PeerId peer) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_.at(id);
  if (node.links.erase(peer) == 0) return;
  std::erase_if(delayed_, [&](auto& entry) {
    const Delayed& waits = entry.second;
    if (waits.node != id || waits.event.peer != peer || !waits.get) return false;
    deliver(node, {Kind::kGetFailed, peer, waits.event.cookie, {}, "the connection was closed"});
    return true;
  });
  deliver(node, {Kind::kClosed, peer, 0, {}, {}});
}

bool Hub::poll(uint32_t id, std::vector<TransportEvent>& events) {
  const std::lock_guard lock(mutex_);
  Node& node = nodes_.at(id);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(node.wake, &count, sizeof count);
  if (node.alive) std::ranges::move(node.inbox, std::back_inserter(events));
  node.inbox.clear();
  return false;
}

void Hub::kill(uint32_t id, bool reported) {
  Node& dead = nodes_.at(id);
  if (!dead.alive) return;
  dead.alive = false;
  for (auto& [other, node] : nodes_) {
    for (const auto& [peer, link] : node.links) {
      if (link.remote == id && reported) {
        deliver(node, {Kind::kPeerLost, peer, 0, {}, "the connection broke"});
      }
    }
  }
}

// Reads that a cut held up go on, as over TCP; those that are still cut off wait again.
void Hub::resume_reads() {
  while (!delayed_.empty() && delayed_.rbegin()->first.first == TimePoint::max()) {
    auto node = delayed_.extract(std::prev(delayed_.end()));
    node.key().first = now_;
    delayed_.insert(std::move(node));
  }
}

void Hub::deliver(Node& node, TransportEvent event) {
  node.inbox.push_back(std::move(event));
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(node.wake, &one, sizeof one);
}

void Hub::later(Duration delay, Delayed what) {
  if (delay == Duration::zero()) {
    happen(std::move(what));
  } else {
    delayed_.emplace(std::pair(now_ + delay, next_delayed_++), std::move(what));
  }
}

// One turn of a get, or all of it.
void Hub::go_on(Node& node, Delayed what) {
  PendingGet& get = *what.get;
  const PeerId peer = what.event.peer;
  const Link& link = node.links.at(peer);
  if (is_cut(what.node, link.remote)) {
    delayed_.emplace(std::pair(TimePoint::max(), next_delayed_++), std::move(what));
    return;  // until close()
  }
  const bool fails = get.fails || !lives(link);
  if (!fails) copy_turn(nodes_.at(link.remote), get);
  const bool all = get.copied == get.stream.bytes();
  if (fails || (get.given_up && !all)) {
    what.event.kind = Kind::kGetFailed;
    what.event.what = fails ? "the read failed" : "the read was given up";
  } else if (!all) {
    deliver(node, {.kind = Kind::kGetProgress,
                   .peer = peer,
                   .cookie = what.event.cookie,
                   .bytes = get.copied});
    return later(std::max(up_to(faults_.get_delay), Duration(1)), std::move(what));
  }
  deliver(node, std::move(what.event));
}

void Hub::happen(Delayed what) {
  Node& node = nodes_.at(what.node);
  if (what.get) return go_on(node, std::move(what));
  const auto from = static_cast<uint32_t>(what.event.peer.value);
  for (const auto& [peer, link] : node.links) {
    if (link.remote != from || link.life != what.life) continue;
    what.event.peer = peer;
    deliver(node, std::move(what.event));
    return;
  }
  ++node.dropped;
}

}  // namespace

std::unique_ptr<LoopbackHub> make_loopback_hub(uint64_t seed) {
  return std::make_unique<Hub>(seed);
}

}  // namespace baton::kvtransfer
