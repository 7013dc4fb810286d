#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/ids.h"
#include "common/net/rpc.h"

namespace baton::router {

// The connection to one worker address, whoever answers there. It greets, hears the worker's hello
// first, and from then on passes its frames on. On the thread of the io_context.
class WorkerLink {
 public:
  struct Handlers {
    // kInvalidArgument: the worker is refused, and asked again after the backoff.
    std::function<status(const proto::WorkerHello& hello, const std::string& pair_address)>
        on_hello;
    std::function<void(WorkerId from, proto::Frame&& frame)> on_frame;
    std::function<void(WorkerId lost)> on_lost;
  };
  enum class State { kConnecting, kRefused, kConnected };

  WorkerLink(boost::asio::io_context& io, std::string address, const net::RpcOptions& options,
             RouterId router, Handlers handlers);

  void send(const proto::Frame& frame);
  // Nothing until it said hello and was accepted.
  std::optional<WorkerId> worker() const { return worker_; }
  State state() const { return state_; }
  // Of whoever was last accepted there; empty: nobody was.
  const std::string& name() const { return name_; }
  const std::string& address() const { return client_->address(); }

 private:
  void on_connected();
  void on_frame(proto::Frame&& frame);
  void on_hello(const proto::WorkerHello& hello);
  void on_disconnected(const Error& why);
  void not_connected(const Error& why);
  void refuse(const Error& why);

  RouterId router_;
  Handlers handlers_;
  State state_ = State::kConnecting;
  std::optional<WorkerId> worker_;
  std::string name_;
  std::string last_trouble_;                // logged once, not at each attempt
  std::unique_ptr<net::RpcClient> client_;  // last: its callbacks use the above
};

}  // namespace baton::router
