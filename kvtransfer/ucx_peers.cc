#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "kvtransfer/memory_map.h"
#include "kvtransfer/ucx_transport_impl.h"

// How the UCX transport connects to peers and lets go of them.
namespace baton::kvtransfer::ucx {
namespace {

using Kind = TransportEvent::Kind;

void on_error(void* arg, ucp_ep_h, ucs_status_t s) {
  Peer& peer = *static_cast<Peer*>(arg);
  peer.owner->lose(peer, fmt::format("{}: {}", peer.name, ucs_status_string(s)));
}

void on_closed(void* request, ucs_status_t, void* user_data) {
  Peer& peer = *static_cast<Peer*>(user_data);
  peer.ep_closed = true;
  peer.close_request = nullptr;
  ucp_request_free(request);
}

void on_discarded(void* request, ucs_status_t, void*) { ucp_request_free(request); }

// UCX believes what it unpacks: an address or a key of another shape ends the process. So they must
// begin as our own, of the same version of UCX, do.
constexpr size_t kAddressHead = 1;  // version and flags
constexpr size_t kKeyHead = 10;     // memory domains, kind of memory, length of the first one's key

bool begins_alike(std::string_view theirs, std::string_view ours, size_t head) {
  return theirs.size() >= head && theirs.substr(0, head) == ours.substr(0, head);
}

Error misshapen(const Peer& peer, std::string_view what) {
  return error(Errc::kDataCorrupt,
               fmt::format("{}: its UCX {} has another shape than ours", peer.name, what));
}

}  // namespace

status UcxTransport::open(Peer& peer, UcxWorker& worker, const std::string& address,
                          bool shared_memory) {
  peer.shared_memory = shared_memory;
  const std::string& ours = worker.address();
  // Of one host and over one transport they have one length, too.
  if (!begins_alike(address, ours, kAddressHead) ||
      (shared_memory && address.size() != ours.size())) {
    return misshapen(peer, "address");
  }
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_NONE;
  if (!shared_memory) {
    params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler = {on_error, &peer};
  }
  const ucs_status_t s = ucp_ep_create(worker.handle(), &params, &peer.ep);
  if (s != UCS_OK) {
    peer.ep = nullptr;
    return error(Errc::kUnavailable,
                 fmt::format("{} cannot be reached: {}", peer.name, ucs_status_string(s)));
  }
  if (!shared_memory || peer.region.bytes == 0) return {};
  return map_region(peer);
}

// The peer says how long its region is; what is really mapped bounds what is read here, or a wrong
// word would end this process.
status UcxTransport::map_region(Peer& peer) {
  const std::string &key = peer.region.key, &ours = shm_->memory_key();
  if (key.size() != ours.size() || !begins_alike(key, ours, kKeyHead)) {
    return misshapen(peer, "memory key");
  }
  ucs_status_t s = ucp_ep_rkey_unpack(peer.ep, peer.region.key.data(), &peer.rkey);
  if (s != UCS_OK) peer.rkey = nullptr;
  void* mapped = nullptr;
  if (s == UCS_OK) s = ucp_rkey_ptr(peer.rkey, peer.region.base, &mapped);
  if (s != UCS_OK) {
    return error(Errc::kUnavailable,
                 fmt::format("{}: its memory cannot be read: {}", peer.name, ucs_status_string(s)));
  }
  const uint64_t there = mapped_bytes_from(mapped);
  if (there < peer.region.bytes) {
    return error(Errc::kUnavailable,
                 fmt::format("{}: its memory cannot be read: {} bytes of the {} it speaks of",
                             peer.name, there, peer.region.bytes));
  }
  peer.mapped = static_cast<const std::byte*>(mapped);
  return {};
}

// UCX reports the death of a peer only in a mode that excludes shared memory. So: peers of this
// host without it, watched by us; all others with it.
status UcxTransport::reach(Peer& peer, const Endpoint& remote) {
  BATON_TRY(const Address address, decode_address(remote.address));
  peer.token = address.token;
  const bool same_host = endpoint_.shared_memory && remote.shared_memory &&
                         remote.host == endpoint_.host && !address.shared_memory.empty();
  if (same_host) {
    // First: UCX 1.13 does not survive the posix key of a process that is gone.
    if (remote.pid != endpoint_.pid && !watch_.add(peer.id.value, remote.pid)) {
      return error(Errc::kUnavailable, fmt::format("{}: its process is gone", peer.name));
    }
    const status opened = open(peer, *shm_, address.shared_memory, true);
    if (opened) return {};
    watch_.remove(peer.id.value);
    LOG_WARN("{}; it is on this host, and is read over the network all the same",
             opened.error().message);
    discard_ep(peer);
  }
  if (net_ && !address.network.empty()) return open(peer, *net_, address.network, false);
  return error(Errc::kUnavailable,
               fmt::format("{} cannot be reached: {}", peer.name,
                           same_host ? "its memory cannot be shared" : "no network in common"));
}

result<PeerId> UcxTransport::connect(const Endpoint& remote, std::string_view name) {
  if (remote.software != endpoint_.software) {
    return error(Errc::kUnsupported, fmt::format("{} has '{}', and this worker '{}'", name,
                                                 remote.software, endpoint_.software));
  }
  auto peer = std::make_unique<Peer>();
  peer->owner = this;
  peer->id = PeerId{next_peer_++};
  peer->name = name;
  peer->region = remote.region;
  if (const status reached = reach(*peer, remote); !reached) {
    discard_ep(*peer);
    return reached.error();
  }
  const PeerId id = peer->id;
  by_token_[peer->token] = id;
  peers_.emplace(id, std::move(peer));
  return id;
}

// Over shared memory, what the mapping is made of; else UCX's first lane.
std::string UcxTransport::transport_of(const Peer& peer) const {
  if (peer.mapped != nullptr) return std::string(memory_kind(peer.mapped));
  const std::vector<std::string> lanes = transports_of(peer.ep);
  return lanes.empty() ? "?" : lanes.front();
}

std::span<const std::byte> UcxTransport::mapped(PeerId id) const {
  const auto it = peers_.find(id);
  if (it == peers_.end() || it->second->mapped == nullptr) return {};
  return {it->second->mapped, it->second->region.bytes};
}

std::string UcxTransport::in_force(PeerId id) const {
  const auto it = peers_.find(id);
  if (it == peers_.end() || it->second->ep == nullptr) return "?";
  return transport_of(*it->second);
}

void UcxTransport::lose(Peer& peer, std::string reason) {
  if (peer.closing || std::exchange(peer.lost, true)) return;
  events_.push_back({Kind::kPeerLost, peer.id, 0, {}, std::move(reason)});
}

void UcxTransport::close(PeerId id) {
  Peer* peer = find(id);
  if (peer == nullptr) return;
  peer->closing = true;
  const auto named = by_token_.find(peer->token);
  if (named != by_token_.end() && named->second == id) by_token_.erase(named);
  watch_.remove(id.value);
  end_reads_of(*peer);  // answers that still come find no read to belong to
  close_ep(*peer);
  if (peer->rkey != nullptr) ucp_rkey_destroy(std::exchange(peer->rkey, nullptr));
  peer->mapped = nullptr;
  events_.push_back({Kind::kClosed, id, 0, {}, {}});
}

// UCX never writes to our memory: reads over shared memory are copies of our own, those over the
// network were given up before. So nobody waits for UCX, which may wait for ever for a dead process
// of this host to take our last messages; force would end that, but is not allowed there.
void UcxTransport::close_ep(Peer& peer) {
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = peer.shared_memory ? 0 : UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = on_closed;
  param.user_data = &peer;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(peer.ep, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) {
    peer.close_request = request;
  } else {
    peer.ep_closed = true;
  }
}

// Of a peer that was never used.
void UcxTransport::discard_ep(Peer& peer) {
  peer.mapped = nullptr;
  if (peer.rkey != nullptr) ucp_rkey_destroy(std::exchange(peer.rkey, nullptr));
  if (peer.ep == nullptr) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = peer.shared_memory ? 0 : UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = on_discarded;
  ucp_ep_close_nbx(std::exchange(peer.ep, nullptr), &param);
}

// Not from within UCX's callbacks, which still look at the peer.
void UcxTransport::forget_closed() {
  std::erase_if(peers_, [](const auto& entry) {
    const Peer& peer = *entry.second;
    return peer.ep_closed && peer.sends == 0;
  });
}

}  // namespace baton::kvtransfer::ucx
