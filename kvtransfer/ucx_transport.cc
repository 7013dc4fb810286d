#include "kvtransfer/ucx_transport.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <unordered_map>
#include <utility>

#include "common/base/log.h"
#include "kvtransfer/host_identity.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/process_watch.h"
#include "kvtransfer/ucx_context.h"

namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;

constexpr unsigned kMessageId = 1;           // of UCX's active messages
constexpr int kMaxProgress = 256;            // calls in one poll()
constexpr int kMaxClosingProgress = 100000;  // calls for the last goodbyes

// Names a transport for the peers that were given its address; drawn at random, so that nobody
// else's message is taken.
using Token = std::array<std::byte, 16>;

struct Header {
  Token to, from;
};

std::string why(ucs_status_t s) { return ucs_status_string(s); }

class UcxTransport final : public Transport {
 public:
  UcxTransport(const UcxOptions& options, ucp_context_h context)
      : options_(options), context_(context) {}
  ~UcxTransport() override;
  status start();

  result<std::span<std::byte>> allocate(size_t bytes) override;
  const Endpoint& endpoint() const override { return endpoint_; }
  result<PeerId> connect(const Endpoint& remote, std::string_view name) override;
  result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie) override;
  status notify(PeerId peer, std::span<const std::byte> payload) override;
  void close(PeerId peer) override;
  bool poll(std::vector<TransportEvent>& events) override;
  int event_fd() const override { return watch_->fd(); }
  result<bool> arm() override;
  std::string in_force(PeerId peer) const override;
  uint64_t dropped_messages() const override { return dropped_; }

 private:
  struct Peer {
    UcxTransport* owner = nullptr;
    PeerId id;
    std::string name;
    Token token{};
    MemoryRegion region;
    ucp_ep_h ep = nullptr;
    ucp_rkey_h rkey = nullptr;
    bool shared_memory = false;  // UCX will never say that it died, nor end what it left undone
    bool lost = false;
    bool closing = false, ep_closed = false, told_closed = false;
    size_t gets = 0;  // under way
    size_t sends = 0, send_bytes = 0;
  };
  // One get(): ends when all its reads have.
  struct PendingGet {
    Peer* peer = nullptr;
    uint64_t cookie = 0;
    size_t reads = 0;  // not yet ended
    ucs_status_t result = UCS_OK;
  };
  // A message under way; UCX reads header and payload until it is done.
  struct PendingSend {
    Peer* peer = nullptr;
    Header header;
    std::vector<std::byte> payload;
    std::list<PendingSend>::iterator self;
  };

  static void on_read(void* request, ucs_status_t s, void* user_data);
  static void on_sent(void* request, ucs_status_t s, void* user_data);
  static void on_closed(void* request, ucs_status_t s, void* user_data);
  static void on_discarded(void* request, ucs_status_t, void*) { ucp_request_free(request); }
  static void on_error(void* arg, ucp_ep_h ep, ucs_status_t s);
  static ucs_status_t on_message(void* arg, const void* header, size_t header_bytes, void* data,
                                 size_t bytes, const ucp_am_recv_param_t* param);

  status open(Peer& peer, const std::string& address, ucp_err_handling_mode_t mode);
  status reach(Peer& peer, const Endpoint& remote);
  std::string transport_of(const Peer& peer) const;
  bool readable(const Peer& peer, const GetOp& op) const;
  void discard_ep(Peer& peer);
  void close_ep(Peer& peer);
  void tell_closed_if_quiet(Peer& peer);
  void forget_closed();
  void lose(Peer& peer, std::string reason);
  Peer* find(PeerId id) {
    const auto it = peers_.find(id);
    return it == peers_.end() || it->second->closing ? nullptr : it->second.get();
  }

  const UcxOptions options_;
  ucp_context_h context_;
  ucp_worker_h worker_ = nullptr;
  ucp_mem_h memory_ = nullptr;
  Token token_{};
  Endpoint endpoint_;
  std::unique_ptr<ProcessWatch> watch_;
  std::map<PeerId, std::unique_ptr<Peer>> peers_;
  std::map<Token, PeerId> by_token_;
  uint64_t next_peer_ = 1;
  std::list<PendingSend> sends_;
  std::vector<TransportEvent> events_;  // until poll() hands them out
  std::vector<uint64_t> ended_;         // scratch
  uint64_t dropped_ = 0;
};

// --- start and end ------------------------------------------------------------------------------

status UcxTransport::start() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // made by one thread, then used by another
  ucs_status_t s = ucp_worker_create(context_, &params, &worker_);
  if (s != UCS_OK) return error(Errc::kUnavailable, "UCX: no worker: " + why(s));

  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  handler.id = kMessageId;
  handler.cb = on_message;
  handler.arg = this;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  s = ucp_worker_set_am_recv_handler(worker_, &handler);
  if (s != UCS_OK) return error(Errc::kUnavailable, "UCX: no active messages: " + why(s));

  int fd = -1;
  s = ucp_worker_get_efd(worker_, &fd);
  if (s != UCS_OK) return error(Errc::kUnavailable, "UCX: no event descriptor: " + why(s));
  watch_ = std::make_unique<ProcessWatch>(fd);
  if (watch_->fd() < 0) return error(Errc::kIo, "the system gives no epoll descriptor");

  if (::getrandom(token_.data(), token_.size(), 0) != static_cast<ssize_t>(token_.size())) {
    return error(Errc::kIo, "the system gives no random bytes");
  }
  BATON_TRY(const std::string address, address_of(worker_));
  endpoint_.address.assign(reinterpret_cast<const char*>(token_.data()), token_.size());
  endpoint_.address += address;
  endpoint_.host = host_identity();
  endpoint_.pid = ::getpid();
  return {};
}

UcxTransport::~UcxTransport() {
  for (auto& [id, peer] : peers_) {
    if (!peer->closing) close(id);
  }
  // Live peers take what is under way within microseconds; dead ones of this host never do.
  const auto busy = [this] {
    return std::ranges::any_of(peers_, [](const auto& p) { return !p.second->ep_closed; });
  };
  for (int i = 0; worker_ != nullptr && busy() && i < kMaxClosingProgress; ++i) {
    ucp_worker_progress(worker_);
  }
  for (auto& [id, peer] : peers_) {
    if (peer->rkey != nullptr) ucp_rkey_destroy(peer->rkey);
  }
  if (memory_ != nullptr) ucp_mem_unmap(context_, memory_);
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  close_ucx_context(context_);
}

result<std::span<std::byte>> UcxTransport::allocate(size_t bytes) {
  if (memory_ != nullptr) return error(Errc::kInternal, "UCX: memory is allocated already");
  BATON_TRY(UcxMemory memory, allocate_ucx_memory(context_, bytes));
  memory_ = memory.handle;
  std::memset(memory.bytes.data(), 0, bytes);
  endpoint_.region = {reinterpret_cast<uint64_t>(memory.bytes.data()), bytes,
                      std::move(memory.key)};
  const std::string_view kind = memory_kind(memory.bytes.data());
  endpoint_.shared_memory = !endpoint_.host.empty() && (kind == "posix" || kind == "sysv");
  LOG_INFO("KV cache memory: {} MiB, {}", bytes >> 20, kind);
  if (!endpoint_.shared_memory && options_.tls == "all") {
    LOG_WARN(
        "no shared memory for the KV cache (is /dev/shm smaller than {} MiB?): workers of "
        "this host read it more slowly",
        bytes >> 20);
  }
  return memory.bytes;
}

// --- peers --------------------------------------------------------------------------------------

status UcxTransport::open(Peer& peer, const std::string& address, ucp_err_handling_mode_t mode) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = mode;
  if (mode == UCP_ERR_HANDLING_MODE_PEER) {
    params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.err_handler = {on_error, &peer};
  }
  ucs_status_t s = ucp_ep_create(worker_, &params, &peer.ep);
  if (s != UCS_OK) {
    peer.ep = nullptr;
    return error(Errc::kUnavailable, fmt::format("{} cannot be reached: {}", peer.name, why(s)));
  }
  peer.shared_memory = mode == UCP_ERR_HANDLING_MODE_NONE;
  if (peer.region.bytes == 0) return {};
  s = ucp_ep_rkey_unpack(peer.ep, peer.region.key.data(), &peer.rkey);
  if (s != UCS_OK) {
    peer.rkey = nullptr;
    return error(Errc::kUnavailable,
                 fmt::format("{}: its memory cannot be read: {}", peer.name, why(s)));
  }
  return {};
}

// UCX reports the death of a peer only in a mode that excludes shared memory. So: peers of this
// host without it, watched by us; all others with it.
status UcxTransport::reach(Peer& peer, const Endpoint& remote) {
  const std::string address = remote.address.substr(token_.size());
  if (endpoint_.shared_memory && remote.shared_memory && remote.host == endpoint_.host) {
    const status opened = open(peer, address, UCP_ERR_HANDLING_MODE_NONE);
    if (opened && is_shared_memory(transport_of(peer))) {
      if (remote.pid == endpoint_.pid || watch_->add(peer.id.value, remote.pid)) return {};
      return error(Errc::kUnavailable, fmt::format("{}: its process is gone", peer.name));
    }
    LOG_WARN("{} is on this host, but its memory cannot be shared: {}", peer.name,
             opened ? "UCX chose " + transport_of(peer) : opened.error().message);
    discard_ep(peer);
  }
  return open(peer, address, UCP_ERR_HANDLING_MODE_PEER);
}

result<PeerId> UcxTransport::connect(const Endpoint& remote, std::string_view name) {
  if (remote.address.size() <= token_.size()) {
    return error(Errc::kInvalidArgument, fmt::format("{}: no UCX address", name));
  }
  auto peer = std::make_unique<Peer>();
  peer->owner = this;
  peer->id = PeerId{next_peer_++};
  peer->name = name;
  peer->region = remote.region;
  std::memcpy(peer->token.data(), remote.address.data(), peer->token.size());
  if (const status reached = reach(*peer, remote); !reached) {
    discard_ep(*peer);
    return reached.error();
  }
  const PeerId id = peer->id;
  by_token_[peer->token] = id;
  peers_.emplace(id, std::move(peer));
  return id;
}

// Gets of memory that is mapped here are copies out of that mapping; else UCX's first lane that can
// read, and that is how it lists them.
std::string UcxTransport::transport_of(const Peer& peer) const {
  const std::vector<std::string> lanes = transports_of(peer.ep);
  if (lanes.empty()) return "?";
  void* mapped = nullptr;
  if (peer.shared_memory && peer.rkey != nullptr &&
      ucp_rkey_ptr(peer.rkey, peer.region.base, &mapped) == UCS_OK) {
    const std::string kind(memory_kind(mapped));
    if (std::ranges::find(lanes, kind) != lanes.end()) return kind;
  }
  const auto direct = std::ranges::find_if(lanes, [](const std::string& lane) {
    return lane == "cma" || lane.starts_with("rc_") || lane.starts_with("dc_");
  });
  return direct != lanes.end() ? *direct : lanes.front();
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

void UcxTransport::on_error(void* arg, ucp_ep_h, ucs_status_t s) {
  Peer& peer = *static_cast<Peer*>(arg);
  peer.owner->lose(peer, fmt::format("{}: {}", peer.name, why(s)));
}

void UcxTransport::close(PeerId id) {
  Peer* peer = find(id);
  if (peer == nullptr) return;
  peer->closing = true;
  const auto named = by_token_.find(peer->token);
  if (named != by_token_.end() && named->second == id) by_token_.erase(named);
  watch_->remove(id.value);
  close_ep(*peer);
  tell_closed_if_quiet(*peer);
}

// Force ends all that is under way at once, but is not allowed for shared memory. There reads are
// copies that have ended when they return, so nothing can touch our memory while UCX waits, perhaps
// for ever, for a dead process to take our last messages.
void UcxTransport::close_ep(Peer& peer) {
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = peer.shared_memory ? 0 : UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = on_closed;
  param.user_data = &peer;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(std::exchange(peer.ep, nullptr), &param);
  if (!UCS_PTR_IS_PTR(request)) peer.ep_closed = true;
}

// Of a peer that was never used.
void UcxTransport::discard_ep(Peer& peer) {
  if (peer.rkey != nullptr) ucp_rkey_destroy(std::exchange(peer.rkey, nullptr));
  if (peer.ep == nullptr) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = peer.shared_memory ? 0 : UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = on_discarded;
  ucp_ep_close_nbx(std::exchange(peer.ep, nullptr), &param);
}

void UcxTransport::on_closed(void* request, ucs_status_t, void* user_data) {
  Peer& peer = *static_cast<Peer*>(user_data);
  peer.ep_closed = true;
  peer.owner->tell_closed_if_quiet(peer);
  ucp_request_free(request);
}

void UcxTransport::tell_closed_if_quiet(Peer& peer) {
  if (!peer.closing || peer.gets > 0 || (!peer.ep_closed && !peer.shared_memory)) return;
  if (std::exchange(peer.told_closed, true)) return;
  if (peer.rkey != nullptr) ucp_rkey_destroy(std::exchange(peer.rkey, nullptr));
  events_.push_back({Kind::kClosed, peer.id, 0, {}, {}});
}

// Not from within UCX's callbacks, which still look at the peer.
void UcxTransport::forget_closed() {
  std::erase_if(peers_, [](const auto& entry) {
    const Peer& peer = *entry.second;
    return peer.told_closed && peer.ep_closed && peer.sends == 0;
  });
}

// --- reads --------------------------------------------------------------------------------------

bool UcxTransport::readable(const Peer& peer, const GetOp& op) const {
  const uint64_t there = peer.region.bytes, here = endpoint_.region.bytes;
  const uint64_t at = reinterpret_cast<uint64_t>(op.local) - endpoint_.region.base;
  return op.bytes > 0 && op.remote_offset <= there && op.bytes <= there - op.remote_offset &&
         at <= here && op.bytes <= here - at;
}

result<bool> UcxTransport::get(PeerId id, std::span<const GetOp> ops, uint64_t cookie) {
  Peer* peer = find(id);
  if (peer == nullptr) return error(Errc::kInvalidArgument, "get: unknown peer");
  if (peer->lost) return error(Errc::kUnavailable, peer->name + " is lost");
  for (const GetOp& op : ops) {
    if (!readable(*peer, op)) {
      return error(Errc::kInvalidArgument,
                   fmt::format("get: {} bytes at {} are outside the memory of {} or ours", op.bytes,
                               op.remote_offset, peer->name));
    }
  }
  auto get = std::make_unique<PendingGet>(PendingGet{peer, cookie});
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMH;
  param.cb.send = on_read;
  param.user_data = get.get();
  param.memh = memory_;
  for (const GetOp& op : ops) {
    const ucs_status_ptr_t request = ucp_get_nbx(
        peer->ep, op.local, op.bytes, peer->region.base + op.remote_offset, peer->rkey, &param);
    if (UCS_PTR_IS_ERR(request)) {
      get->result = UCS_PTR_STATUS(request);
      break;
    }
    if (request != nullptr) ++get->reads;
  }
  if (get->reads > 0) {
    ++peer->gets;
    (void)get.release();  // on_read() ends it
    return false;
  }
  if (get->result == UCS_OK) return true;
  return error(Errc::kUnavailable, fmt::format("{}: {}", peer->name, why(get->result)));
}

void UcxTransport::on_read(void* request, ucs_status_t s, void* user_data) {
  ucp_request_free(request);
  auto* get = static_cast<PendingGet*>(user_data);
  if (s != UCS_OK) get->result = s;
  if (--get->reads > 0) return;
  const std::unique_ptr<PendingGet> ended(get);
  Peer& peer = *get->peer;
  const bool ok = get->result == UCS_OK;
  peer.owner->events_.push_back({ok ? Kind::kGetDone : Kind::kGetFailed,
                                 peer.id,
                                 get->cookie,
                                 {},
                                 ok ? "" : fmt::format("{}: {}", peer.name, why(get->result))});
  --peer.gets;
  peer.owner->tell_closed_if_quiet(peer);
}

// --- messages -----------------------------------------------------------------------------------

status UcxTransport::notify(PeerId id, std::span<const std::byte> payload) {
  Peer* peer = find(id);
  if (peer == nullptr || payload.size() > kMaxMessageBytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("notify: unknown peer, or {} bytes", payload.size()));
  }
  if (peer->lost) return error(Errc::kUnavailable, peer->name + " is lost");
  if (peer->sends >= options_.max_queued_messages ||
      peer->send_bytes + payload.size() > options_.max_queued_bytes) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} does not take its messages: {} wait", peer->name, peer->sends));
  }
  sends_.push_front({peer, {peer->token, token_}, {payload.begin(), payload.end()}, {}});
  PendingSend& send = sends_.front();
  send.self = sends_.begin();
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.cb.send = on_sent;
  param.user_data = &send;
  const ucs_status_ptr_t request =
      ucp_am_send_nbx(peer->ep, kMessageId, &send.header, sizeof send.header, send.payload.data(),
                      send.payload.size(), &param);
  if (UCS_PTR_IS_PTR(request)) {
    ++peer->sends;
    peer->send_bytes += payload.size();
    return {};
  }
  sends_.pop_front();
  if (request == nullptr) return {};
  return error(Errc::kUnavailable, fmt::format("{}: {}", peer->name, why(UCS_PTR_STATUS(request))));
}

void UcxTransport::on_sent(void* request, ucs_status_t, void* user_data) {
  ucp_request_free(request);
  auto& send = *static_cast<PendingSend*>(user_data);
  --send.peer->sends;
  send.peer->send_bytes -= send.payload.size();
  send.peer->owner->sends_.erase(send.self);
}

ucs_status_t UcxTransport::on_message(void* arg, const void* header, size_t header_bytes,
                                      void* data, size_t bytes, const ucp_am_recv_param_t* param) {
  auto& self = *static_cast<UcxTransport*>(arg);
  Header h;
  const bool whole = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
  if (whole && header_bytes == sizeof h && bytes <= kMaxMessageBytes) {
    std::memcpy(&h, header, sizeof h);
    const auto from = self.by_token_.find(h.from);
    if (h.to == self.token_ && from != self.by_token_.end()) {
      const auto* begin = static_cast<const std::byte*>(data);
      self.events_.push_back({Kind::kMessage, from->second, 0, {begin, begin + bytes}, {}});
      return UCS_OK;
    }
  }
  ++self.dropped_;
  return UCS_OK;  // UCX drops what it still holds of it
}

// --- the loop -----------------------------------------------------------------------------------

bool UcxTransport::poll(std::vector<TransportEvent>& events) {
  int calls = 0;
  while (calls < kMaxProgress && ucp_worker_progress(worker_) != 0) ++calls;
  ended_.clear();
  watch_->ended(ended_);
  for (const uint64_t id : ended_) {
    if (Peer* peer = find(PeerId{id})) lose(*peer, peer->name + ": its process has ended");
  }
  forget_closed();
  std::ranges::move(events_, std::back_inserter(events));
  events_.clear();
  return calls == kMaxProgress;
}

result<bool> UcxTransport::arm() {
  if (!events_.empty()) return false;
  const ucs_status_t s = ucp_worker_arm(worker_);
  if (s == UCS_OK) return true;
  if (s == UCS_ERR_BUSY) return false;
  return error(Errc::kIo, "UCX: arm: " + why(s));
}

}  // namespace

result<std::unique_ptr<Transport>> make_ucx_transport(const UcxOptions& options) {
  BATON_TRY(ucp_context* const context, open_ucx_context(options));
  auto transport = std::make_unique<UcxTransport>(options, context);
  BATON_CHECK_OK(transport->start());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace baton::kvtransfer
