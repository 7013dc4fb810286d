#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kvtransfer/messages.h"
#include "kvtransfer/ucx_transport_impl.h"

// How the UCX transport sends and receives.
namespace baton::kvtransfer::ucx {
namespace {

using Kind = TransportEvent::Kind;

Error failed(const Peer& peer, ucs_status_t s) {
  return error(Errc::kUnavailable, fmt::format("{}: {}", peer.name, ucs_status_string(s)));
}

void on_sent(void* request, ucs_status_t, void* user_data) {
  ucp_request_free(request);
  auto& sending = *static_cast<Sending*>(user_data);
  sending.peer->owner->sent(sending);
}

template <Am am>
ucs_status_t on_am(void* arg, const void* header, size_t header_bytes, void* data, size_t bytes,
                   const ucp_am_recv_param_t* param) {
  auto& transport = *static_cast<UcxTransport*>(arg);
  Header h;
  // Baton sends nothing by rendezvous: what comes so is not from a peer.
  if (header_bytes != sizeof h || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    transport.drop();
  } else {
    std::memcpy(&h, header, sizeof h);
    transport.received(am, h, {static_cast<const std::byte*>(data), bytes});
  }
  return UCS_OK;  // UCX keeps nothing of it
}

// UCX asks for bytes [at, at + max_bytes) of a reply when it has room for them.
size_t pack_reply(void* state, size_t at, void* out, size_t max_bytes) {
  const auto& reply = *static_cast<const Sending*>(state);
  const size_t n = std::min(max_bytes, reply.bytes - at);
  gather(*reply.stream, reply.peer->owner->memory(), reply.header.at + at,
         {static_cast<std::byte*>(out), n});
  return n;
}

constexpr ucp_generic_dt_ops_t kReplyOps = {
    .start_pack = [](void*, const void* buffer, size_t) { return const_cast<void*>(buffer); },
    .start_unpack = [](void*, void*, size_t) -> void* { return nullptr; },
    .packed_size = [](void* state) { return static_cast<const Sending*>(state)->bytes; },
    .pack = pack_reply,
    .unpack = [](void*, size_t, const void*, size_t) { return UCS_ERR_UNSUPPORTED; },
    .finish = [](void*) {}};

}  // namespace

status add_handlers(UcxWorker& worker, UcxTransport& transport) {
  const std::pair<Am, ucp_am_recv_callback_t> handlers[] = {
      {kMessageAm, on_am<kMessageAm>}, {kReadAm, on_am<kReadAm>}, {kReplyAm, on_am<kReplyAm>},
      {kOpenAm, on_am<kOpenAm>},       {kTurnAm, on_am<kTurnAm>}, {kGiveUpAm, on_am<kGiveUpAm>}};
  for (const auto& [am, handler] : handlers) {
    ucp_am_handler_param_t param{};
    param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
    param.id = am;
    param.cb = handler;
    param.arg = &transport;
    param.flags = UCP_AM_FLAG_WHOLE_MSG;
    if (ucp_worker_set_am_recv_handler(worker.handle(), &param) != UCS_OK) {
      return error(Errc::kUnavailable, "UCX: no active messages");
    }
  }
  return {};
}

uint64_t make_reply_type() {
  ucp_datatype_t type = 0;
  return ucp_dt_create_generic(&kReplyOps, nullptr, &type) == UCS_OK ? type : 0;
}
void drop_reply_type(uint64_t type) { ucp_dt_destroy(type); }

// --- messages -----------------------------------------------------------------------------------

status UcxTransport::notify(PeerId id, std::span<const std::byte> payload) {
  Peer* peer = find(id);
  if (peer == nullptr || payload.size() > kMaxMessageBytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("notify: unknown peer, or {} bytes", payload.size()));
  }
  Sending message;
  message.header.read = peer->first_read;
  message.header.at = id.value;
  message.payload.assign(payload.begin(), payload.end());
  return send(*peer, kMessageAm, std::move(message));
}

status UcxTransport::send(Peer& peer, Am am, Sending content) {
  if (peer.lost) return error(Errc::kUnavailable, peer.name + " is lost");
  if (peer.sends >= options_.max_queued_sends ||
      peer.send_bytes + content.payload.size() > options_.max_queued_bytes) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} does not take what is sent: {} wait", peer.name, peer.sends));
  }
  Sending& sending = sends_.emplace_front(std::move(content));
  sending.peer = &peer;
  sending.header.to = peer.token;
  sending.header.from = token_;
  sending.self = sends_.begin();
  ucp_request_param_t param{};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  param.cb.send = on_sent;
  param.user_data = &sending;
  const void* content_at = sending.payload.data();
  size_t count = sending.payload.size();
  if (sending.stream) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    param.datatype = reply_type_;
    content_at = &sending;
    count = 1;
  }
  const ucs_status_ptr_t request = ucp_am_send_nbx(
      peer.ep, am, &sending.header, sizeof sending.header, content_at, count, &param);
  if (UCS_PTR_IS_PTR(request)) {
    ++peer.sends;
    peer.send_bytes += sending.payload.size();
    return {};
  }
  sends_.erase(sending.self);
  if (request == nullptr) return {};
  return failed(peer, UCS_PTR_STATUS(request));
}

void UcxTransport::sent(Sending& sending) {
  --sending.peer->sends;
  sending.peer->send_bytes -= sending.payload.size();
  sends_.erase(sending.self);
}

void UcxTransport::received(Am am, const Header& header, std::span<const std::byte> bytes) {
  const auto from = by_token_.find(header.from);
  if (header.to != token_ || from == by_token_.end()) return drop();
  Peer* peer = find(from->second);
  if (peer == nullptr || peer->lost) return drop();
  switch (am) {
    case kMessageAm:
      if (bytes.size() > kMaxMessageBytes) return drop();
      close_opened_before(*peer, header.read);
      meet(*peer, header.at);
      events_.push_back({Kind::kMessage, peer->id, 0, {bytes.begin(), bytes.end()}, {}});
      return;
    case kReadAm:
    case kOpenAm:
      return answer(*peer, am, header, bytes);
    case kTurnAm:
      return answer_turn(*peer, header.read, header.at);
    case kGiveUpAm:
      return answer_give_up(*peer, header.read);
    case kReplyAm:
      return take_reply(*peer, header, bytes);
  }
}

}  // namespace baton::kvtransfer::ucx
