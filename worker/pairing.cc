#include "worker/pairing.h"

#include <set>
#include <utility>

#include "common/base/log.h"

namespace baton::worker {

struct Pairing::Peer {
  std::unique_ptr<net::RpcClient> client;
  WorkerId worker;      // 0 until paired
  std::string refusal;  // the last one logged, so that it is logged once
};

Pairing::Pairing(boost::asio::io_context& io, net::RpcOptions rpc, Handlers handlers)
    : io_(io), rpc_(std::move(rpc)), handlers_(std::move(handlers)) {}
Pairing::~Pairing() = default;

void Pairing::set_peers(RouterId router, const proto::Peers& peers) {
  auto& named = named_[router];
  named.clear();
  for (const auto& peer : peers.prefill()) {
    if (named.size() >= kMaxPeers) {
      LOG_WARN("router {} names over {} peers; the rest is left out", router.value, kMaxPeers);
      break;
    }
    named[peer.address()] = WorkerId(peer.worker());
  }
  apply();
}

void Pairing::forget_router(RouterId router) {
  named_.erase(router);
  // Pairs stay: the router is likely to come back, and another may name them soon.
}

void Pairing::apply() {
  std::set<std::string> wanted;
  for (const auto& [router, named] : named_) {
    for (const auto& [address, worker] : named) wanted.insert(address);
  }
  for (auto it = peers_.begin(); it != peers_.end();) {
    if (wanted.contains(it->first)) {
      ++it;
      continue;
    }
    const auto gone = it->second;
    it = peers_.erase(it);
    if (gone->worker != WorkerId()) handlers_.on_lost(gone->worker);
  }
  for (const auto& address : wanted) {
    if (!peers_.contains(address)) dial(address);
  }
}

void Pairing::dial(const std::string& address) {
  auto peer = std::make_shared<Peer>();
  peers_[address] = peer;
  std::weak_ptr<Peer> weak = peer;
  peer->client = net::make_rpc_client(
      io_, address, rpc_,
      {.on_connected =
           [this](net::RpcConnection& connection) {
             proto::Frame frame;
             frame.mutable_pair_request()->set_hello(handlers_.hello());
             if (const status sent = connection.send(frame); !sent) {
               LOG_WARN("pairing: {}", sent.error().message);
             }
           },
       .on_frame =
           [this, weak](proto::Frame&& frame) {
             const auto p = weak.lock();
             if (!p || !frame.has_pair_reply() || p->worker != WorkerId()) return;
             const auto& reply = frame.pair_reply();
             auto worker = reply.error().empty()
                               ? handlers_.on_hello(reply.hello())
                               : result<WorkerId>(error(Errc::kUnsupported, reply.error()));
             if (worker) {
               p->worker = *worker;
               p->refusal.clear();
               p->client->settled();
               return;
             }
             if (p->refusal != worker.error().message) {
               p->refusal = worker.error().message;
               LOG_ERROR("no pair with {}: {}", p->client->address(), p->refusal);
             }
             p->client->reset("not paired");
           },
       .on_disconnected =
           [this, weak](const Error& why) {
             const auto p = weak.lock();
             if (!p) return;
             if (p->worker == WorkerId()) return not_connected(*p, why);
             LOG_INFO("lost peer: {}", why.message);
             handlers_.on_lost(std::exchange(p->worker, WorkerId()));
           }});
}

// As a router does: one that will not have us is told of once.
void Pairing::not_connected(Peer& peer, const Error& why) {
  if (why.code != Errc::kPermissionDenied || why.message == peer.refusal) return;
  peer.refusal = why.message;
  LOG_WARN("no connection: {}", why.message);
}

void Pairing::repair(WorkerId peer) {
  for (const auto& [address, p] : peers_) {
    if (p->worker != peer) continue;
    p->worker = WorkerId();
    p->client->reset("pairing again");
    return;
  }
}

}  // namespace baton::worker
