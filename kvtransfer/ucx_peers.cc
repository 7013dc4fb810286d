#include <fmt/format.h>
#include <signal.h>
#include <ucp/api/ucp.h>

#include <cerrno>
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

// False: there is no such process. UCX 1.13 does not survive the posix key of one that is gone.
bool is_alive(int64_t pid) { return ::kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH; }

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

status UcxTransport::open(Peer& peer, const std::string& address) {
  if (!begins_alike(address, net_->address(), kAddressHead)) return misshapen(peer, "address");
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler = {on_error, &peer};
  const ucs_status_t s = ucp_ep_create(net_->handle(), &params, &peer.ep);
  if (s == UCS_OK) return {};
  peer.ep = nullptr;
  return error(Errc::kUnavailable,
               fmt::format("{} cannot be reached: {}", peer.name, ucs_status_string(s)));
}

// Whose own address and key have the shape of the peer's. Few hosts need another way than the
// first: where that gives too little for a cache.
result<UcxWorker*> UcxTransport::find_mapper(const Peer& peer, const std::string& address) {
  std::string_view differs = "address";
  const std::string& key = peer.region.key;
  for (size_t i = 0; i < shm_.size() || (!options_.is_read && add_shared_memory()); ++i) {
    const std::string &ours = shm_[i]->address(), &our_key = shm_[i]->memory_key();
    // Of one host and over one transport they have one length, too.
    if (!begins_alike(address, ours, kAddressHead) || address.size() != ours.size()) continue;
    differs = "memory key";
    if (key.size() == our_key.size() && begins_alike(key, our_key, kKeyHead)) return shm_[i].get();
  }
  return misshapen(peer, differs);
}

// The peer says how long its region is; what is really mapped bounds what is read here, or a wrong
// word would end this process. Nothing is ever sent on the endpoint that the mapping needs.
status UcxTransport::map_region(Peer& peer, const std::string& address) {
  BATON_TRY(const UcxWorker* worker, find_mapper(peer, address));
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  ucs_status_t s = ucp_ep_create(worker->handle(), &params, &peer.map_ep);
  if (s != UCS_OK) peer.map_ep = nullptr;
  if (s == UCS_OK) s = ucp_ep_rkey_unpack(peer.map_ep, peer.region.key.data(), &peer.rkey);
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

void UcxTransport::unmap_region(Peer& peer) {
  peer.mapped = nullptr;
  if (peer.rkey != nullptr) ucp_rkey_destroy(std::exchange(peer.rkey, nullptr));
  if (peer.map_ep == nullptr) return;
  ucp_request_param_t param{};  // without force, which is not allowed where peers share memory
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK;
  param.cb.send = on_discarded;
  ucp_ep_close_nbx(std::exchange(peer.map_ep, nullptr), &param);
}

// Messages take the network also on one host. UCX's queue in shared memory is one for all senders:
// a process that is killed while it puts something in leaves a hole that nothing behind it ever
// passes, and a worker that stands there hears nobody any more.
status UcxTransport::reach(Peer& peer, const Endpoint& remote) {
  BATON_TRY(const Address address, decode_address(remote.address));
  peer.token = address.token;
  const bool same_host = !shm_.empty() && remote.shared_memory && remote.host == endpoint_.host &&
                         !remote.host.empty() && !address.shared_memory.empty();
  if (same_host) {
    BATON_CHECK_OK(share_memory(peer, remote, address.shared_memory));
  } else if (!reads_network_ && peer.region.bytes > 0) {
    return error(Errc::kUnavailable,
                 fmt::format("{} cannot be read: no shared memory in common", peer.name));
  }
  return open(peer, address.network);
}

status UcxTransport::share_memory(Peer& peer, const Endpoint& remote, const std::string& address) {
  if (remote.pid != endpoint_.pid && !is_alive(remote.pid)) {
    return error(Errc::kUnavailable, fmt::format("{}: its process is gone", peer.name));
  }
  if (peer.region.bytes == 0) return {};
  const status mapped = map_region(peer, address);
  if (mapped || !reads_network_) return mapped;
  unmap_region(peer);
  LOG_WARN("{}; it is on this host, and is read over the network all the same",
           mapped.error().message);
  return {};
}

result<PeerId> UcxTransport::connect(const Endpoint& remote, std::string_view name) {
  if (remote.software != endpoint_.software) {
    return error(Errc::kUnsupported, fmt::format("{} has '{}', and this worker '{}'", name,
                                                 remote.software, endpoint_.software));
  }
  auto peer = std::make_unique<Peer>(options_);
  peer->owner = this;
  peer->id = PeerId{next_peer_++};
  peer->name = name;
  peer->region = remote.region;
  peer->first_read = next_read_;
  if (const status reached = reach(*peer, remote); !reached) {
    unmap_region(*peer);
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
  if (it->second->region.bytes == 0) return "none";
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
  // Answers that still come find no read to belong to.
  end_reads_of(*peer, "the connection was closed");
  peer->opened.clear();
  unmap_region(*peer);
  close_ep(*peer);
  events_.push_back({Kind::kClosed, id, 0, {}, {}});
}

// UCX never writes to our memory: reads over shared memory are copies of our own, those over the
// network were given up before. So nobody waits for UCX.
//
// A peer that only fell silent still gets what is half sent to it, however late. Without that, UCX
// 1.13 keeps its connection to hear its last word, and the process ends if that comes when there is
// room for the other half (uct_tcp_iface_handle_events goes on with what it has just freed).
void UcxTransport::close_ep(Peer& peer) {
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = peer.lost || ending_ ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  param.cb.send = on_closed;
  param.user_data = &peer;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(peer.ep, nullptr), &param);
  if (UCS_PTR_IS_PTR(request)) {
    peer.close_request = request;
  } else {
    peer.ep_closed = true;
  }
}

// Not from within UCX's callbacks, which still look at the peer.
void UcxTransport::forget_closed() {
  std::erase_if(peers_, [](const auto& entry) {
    const Peer& peer = *entry.second;
    return peer.ep_closed && peer.sends == 0;
  });
}

}  // namespace baton::kvtransfer::ucx
