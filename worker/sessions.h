#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/net/rpc.h"

namespace baton::worker {

// Who is connected to this worker: routers, and workers that pair. The first frame tells which;
// who sends none within two seconds, or something else, is cut off. One connection a router; a
// newer one takes the older one's place. Runs on the io_context's thread.
class Sessions {
 public:
  struct Handlers {
    std::function<proto::WorkerHello()> hello;  // what a router is told first
    std::function<void(RouterId)> on_router;    // after the hello went out
    std::function<void(RouterId, proto::Frame&&)> on_frame;
    std::function<void(RouterId)> on_router_lost;
    // A worker wants to pair; fill the reply. On success the peer's id comes back, and
    // on_peer_lost(id) is called when its connection (the last one, if it has several) ends.
    std::function<result<WorkerId>(const proto::PairRequest&, proto::PairReply&)> on_pair;
    std::function<void(WorkerId)> on_peer_lost;
  };

  Sessions(boost::asio::io_context& io, net::RpcOptions rpc, Handlers handlers);
  ~Sessions();

  status listen(const std::string& address);
  uint16_t port() const;

  // Dropped if that router is away: its requests are being cancelled. What cannot be sent ends the
  // connection: a router that waits for it must hear that it will not come.
  void send(RouterId router, const proto::Frame& frame);
  void broadcast(const proto::Frame& frame);
  // That both sides speak; 0 if that router is away.
  uint32_t protocol(RouterId router) const;
  // This side has given the peer up: its connections are closed, so that it pairs again.
  // on_peer_lost is not called.
  void drop_peer(WorkerId peer);
  size_t num_routers() const { return routers_.size(); }
  // The smallest ids of those connected, ascending, at most so many.
  std::vector<RouterId> routers(size_t most) const;
  size_t num_guests() const { return guests_.size(); }  // connections, of whomever
  // Sends what is queued and closes everything.
  void close();

 private:
  using Connection = std::shared_ptr<net::RpcConnection>;
  struct Guest;
  static constexpr size_t kMaxRefusals = 256;
  void accept(Connection connection);
  void first_frame(const std::shared_ptr<Guest>& guest, proto::Frame&& frame);
  static bool is_another_way(const Guest& guest, const proto::RouterHello& hello);
  void welcome_router(const std::shared_ptr<Guest>& guest, const proto::RouterHello& hello);
  void welcome_peer(const std::shared_ptr<Guest>& guest, const proto::PairRequest& request);
  void refused(const net::RpcConnection& connection, const Error& why);
  void lost(const std::shared_ptr<Guest>& guest);
  void peer_connection_lost(WorkerId peer);
  void send(RouterId router, net::RpcConnection& connection, const proto::Frame& frame);

  boost::asio::io_context& io_;
  const net::RpcOptions rpc_;
  Handlers handlers_;
  std::unique_ptr<net::RpcServer> server_;
  std::map<RouterId, Connection> routers_;
  std::map<net::RpcConnection*, std::shared_ptr<Guest>> guests_;
  std::set<std::pair<std::string, std::string>> refusals_;  // (host, reason), logged
};

}  // namespace baton::worker
