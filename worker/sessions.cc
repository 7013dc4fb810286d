#include "worker/sessions.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "common/base/log.h"
#include "common/net/protocol.h"

namespace baton::worker {
namespace {

std::string host_of(const net::RpcConnection& connection) {
  const std::string& peer = connection.peer();
  return peer.substr(0, peer.rfind(':'));
}

}  // namespace

struct Sessions::Guest {
  enum class Kind { kUnknown, kRouter, kPeer, kDropped, kSentAway };
  Guest(boost::asio::io_context& io, Connection c) : connection(std::move(c)), timer(io) {}
  Connection connection;
  boost::asio::steady_timer timer;
  Kind kind = Kind::kUnknown;
  RouterId router;
  uint32_t protocol = 0;  // a router's, as far as this side speaks it
  std::string dialled;    // likewise; empty: it did not say
  WorkerId peer;
};

Sessions::Sessions(boost::asio::io_context& io, net::RpcOptions rpc, Handlers handlers)
    : io_(io), rpc_(std::move(rpc)), handlers_(std::move(handlers)) {}

Sessions::~Sessions() { close(); }

status Sessions::listen(const std::string& address) {
  BATON_TRY(server_, net::listen_rpc(io_, address, rpc_, [this](Connection connection) {
              accept(std::move(connection));
            }));
  return {};
}

uint16_t Sessions::port() const { return server_->port(); }

void Sessions::accept(Connection connection) {
  auto guest = std::make_shared<Guest>(io_, std::move(connection));
  guests_[guest->connection.get()] = guest;
  guest->timer.expires_after(seconds(2));
  guest->timer.async_wait([guest](boost::system::error_code ec) {
    if (!ec && guest->kind == Guest::Kind::kUnknown) guest->connection->close();
  });
  std::weak_ptr<Guest> weak = guest;
  guest->connection->set_handlers({
      .on_frame =
          [this, weak](proto::Frame&& frame) {
            const auto g = weak.lock();
            if (!g) return;
            if (g->kind == Guest::Kind::kRouter) {
              handlers_.on_frame(g->router, std::move(frame));
            } else if (g->kind == Guest::Kind::kUnknown) {
              first_frame(g, std::move(frame));
            }
          },
      .on_close =
          [this, weak](const Error& why) {
            const auto g = weak.lock();
            if (!g) return;
            if (g->kind != Guest::Kind::kSentAway) LOG_INFO("connection ended: {}", why.message);
            lost(g);
          },
  });
}

void Sessions::first_frame(const std::shared_ptr<Guest>& guest, proto::Frame&& frame) {
  guest->timer.cancel();
  if (frame.has_router_hello()) return welcome_router(guest, frame.router_hello());
  if (frame.has_pair_request()) return welcome_peer(guest, frame.pair_request());
  LOG_WARN("{} began with neither a router's hello nor a request to pair",
           guest->connection->peer());
  guest->connection->close();
}

bool Sessions::is_another_way(const Guest& guest, const proto::RouterHello& hello) {
  return !guest.dialled.empty() && !hello.dialled().empty() && guest.dialled != hello.dialled();
}

void Sessions::welcome_router(const std::shared_ptr<Guest>& guest,
                              const proto::RouterHello& hello) {
  if (!net::protocols_meet(hello.protocol_min(), hello.protocol_max()) || hello.router() == 0) {
    LOG_WARN("router at {} speaks protocol {}..{}; this worker {}..{}", guest->connection->peer(),
             hello.protocol_min(), hello.protocol_max(), net::kProtocolMin, net::kProtocolMax);
    guest->connection->close();
    return;
  }
  const auto old = routers_.find(RouterId(hello.router()));
  if (old != routers_.end() && is_another_way(*guests_.at(old->second.get()), hello)) {
    // It sees by the hello who is here, and says so; it comes again and again.
    guest->kind = Guest::Kind::kSentAway;
    proto::Frame reply;
    *reply.mutable_worker_hello() = handlers_.hello();
    (void)guest->connection->send(reply);  // a failure closes it, too
    guest->connection->close();
    return;
  }
  guest->kind = Guest::Kind::kRouter;
  guest->router = RouterId(hello.router());
  guest->protocol = std::min(hello.protocol_max(), net::kProtocolMax);
  guest->dialled = hello.dialled();
  if (old != routers_.end()) {
    const Connection replaced = std::exchange(old->second, guest->connection);
    // What it still says is of the past, and must not be done.
    guests_.at(replaced.get())->kind = Guest::Kind::kDropped;
    replaced->close();
    handlers_.on_router_lost(guest->router);  // what ran over the old connection is lost with it
  } else {
    routers_[guest->router] = guest->connection;
  }
  proto::Frame reply;
  *reply.mutable_worker_hello() = handlers_.hello();
  send(guest->router, reply);
  handlers_.on_router(guest->router);
}

void Sessions::welcome_peer(const std::shared_ptr<Guest>& guest,
                            const proto::PairRequest& request) {
  proto::Frame reply;
  const auto peer = handlers_.on_pair(request, *reply.mutable_pair_reply());
  if (!peer) {
    refused(*guest->connection, peer.error());
    reply.mutable_pair_reply()->set_error(peer.error().message);
  }
  const status sent = guest->connection->send(reply);
  if (!peer || !sent) return guest->connection->close();
  guest->kind = Guest::Kind::kPeer;
  guest->peer = *peer;
  std::erase_if(refusals_,
                [host = host_of(*guest->connection)](const auto& r) { return r.first == host; });
}

// It tries again and again: each host's reason is logged once, until that host has paired.
void Sessions::refused(const net::RpcConnection& connection, const Error& why) {
  if (refusals_.size() >= kMaxRefusals) refusals_.clear();
  if (refusals_.emplace(host_of(connection), why.message).second) {
    LOG_WARN("no pair with {}: {}", connection.peer(), why.message);
  }
}

void Sessions::lost(const std::shared_ptr<Guest>& guest) {
  guest->timer.cancel();
  guests_.erase(guest->connection.get());
  if (guest->kind == Guest::Kind::kPeer) return peer_connection_lost(guest->peer);
  if (guest->kind != Guest::Kind::kRouter) return;
  const auto current = routers_.find(guest->router);
  if (current == routers_.end() || current->second != guest->connection) return;  // replaced
  routers_.erase(current);
  handlers_.on_router_lost(guest->router);
}

// A peer that connected again is paired over the new connection; the end of the old one, which may
// be noticed much later, ends nothing.
void Sessions::peer_connection_lost(WorkerId peer) {
  for (const auto& [raw, guest] : guests_) {
    if (guest->kind == Guest::Kind::kPeer && guest->peer == peer) return;
  }
  handlers_.on_peer_lost(peer);
}

void Sessions::drop_peer(WorkerId peer) {
  for (const auto& [raw, guest] : guests_) {
    if (guest->kind != Guest::Kind::kPeer || guest->peer != peer) continue;
    guest->kind = Guest::Kind::kDropped;
    guest->connection->close();
  }
}

void Sessions::send(RouterId router, const proto::Frame& frame) {
  const auto found = routers_.find(router);
  if (found != routers_.end()) send(router, *found->second, frame);
}

uint32_t Sessions::protocol(RouterId router) const {
  const auto found = routers_.find(router);
  return found == routers_.end() ? 0 : guests_.at(found->second.get())->protocol;
}

std::vector<RouterId> Sessions::routers(size_t most) const {
  std::vector<RouterId> ids;
  for (const auto& [router, connection] : routers_) {
    if (ids.size() == most) break;
    ids.push_back(router);
  }
  return ids;
}

void Sessions::broadcast(const proto::Frame& frame) {
  for (const auto& [router, connection] : routers_) send(router, *connection, frame);
}

// A connection that fails to send closes itself, but not for a frame that is too long. lost()
// follows.
void Sessions::send(RouterId router, net::RpcConnection& connection, const proto::Frame& frame) {
  const status sent = connection.send(frame);
  if (sent) return;
  LOG_WARN("to router {}: {}", router.value, sent.error().message);
  if (sent.error().code == Errc::kInvalidArgument) connection.close();
}

void Sessions::close() {
  server_.reset();
  for (const auto& [raw, guest] : std::exchange(guests_, {})) {
    guest->timer.cancel();
    guest->connection->set_handlers({});
    guest->connection->close();
  }
  routers_.clear();
}

}  // namespace baton::worker
