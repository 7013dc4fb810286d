#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/ids.h"
#include "common/net/rpc.h"

namespace baton::worker {

// Keeps a connection to every prefill worker that routers have named, so that pairs form before a
// request needs one, and a peer's death is noticed at once. Runs on the io_context's thread.
class Pairing {
 public:
  struct Handlers {
    std::function<std::string()> hello;  // this worker's hand-off hello, serialized
    // The other side's hello; its id on success. An error is told and tried again later.
    std::function<result<WorkerId>(const std::string& hello)> on_hello;
    std::function<void(WorkerId)> on_lost;
  };

  Pairing(boost::asio::io_context& io, net::RpcOptions rpc, Handlers handlers);
  ~Pairing();

  // The peers that one router knows now; what it named before and no longer names is given up,
  // unless another router still names it.
  void set_peers(RouterId router, const proto::Peers& peers);
  void forget_router(RouterId router);
  // Pairs with this one, if it is connected (its hand-off state was lost on this side).
  void repair(WorkerId peer);

 private:
  static constexpr size_t kMaxPeers = 4096;
  struct Peer;
  void apply();
  void dial(const std::string& address);
  static void not_connected(Peer& peer, const Error& why);

  boost::asio::io_context& io_;
  const net::RpcOptions rpc_;
  Handlers handlers_;
  std::map<RouterId, std::map<std::string, WorkerId>> named_;  // by address
  std::map<std::string, std::shared_ptr<Peer>> peers_;         // by address
};

}  // namespace baton::worker
