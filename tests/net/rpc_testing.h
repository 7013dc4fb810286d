#pragma once

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <vector>

#include "common/net/rpc.h"

namespace baton::net {

using boost::asio::ip::tcp;

inline RpcOptions quick() {
  RpcOptions o;
  o.ping_every = milliseconds(20);
  o.silent_after = seconds(2);
  o.reconnect_min = milliseconds(5);
  o.reconnect_max = milliseconds(20);
  return o;
}

inline proto::Frame cancel(uint64_t request) {
  proto::Frame f;
  f.mutable_cancel()->set_request(request);
  return f;
}

class RpcTest : public ::testing::Test {
 protected:
  // Runs the loop until `done`, for five seconds at most.
  template <class Done>
  bool run_until(Done done) {
    const auto end = Clock::now() + seconds(5);
    while (!done() && Clock::now() < end) io_.run_one_for(milliseconds(5));
    return done();
  }
  void listen(RpcOptions options = quick(), const std::string& address = "127.0.0.1:0",
              size_t max = 16) {
    auto server = listen_rpc(
        io_, address, options,
        [this](std::shared_ptr<RpcConnection> c) {
          accepted_.push_back(c);
          c->set_handlers({.on_frame = [this](proto::Frame&& f) { got_.push_back(std::move(f)); },
                           .on_close = [this](const Error& e) { closed_.push_back(e); }});
        },
        max);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  std::unique_ptr<RpcClient> dial(const std::string& to, RpcOptions options = quick()) {
    return make_rpc_client(
        io_, to, options,
        {.on_connected = [this](RpcConnection&) { ++connects_; },
         .on_frame = [this](proto::Frame&& f) { client_got_.push_back(std::move(f)); },
         .on_disconnected = [this](const Error& e) { disconnects_.push_back(e); }});
  }

  // A socket of a peer that need not keep to the protocol.
  std::unique_ptr<tcp::socket> connect_raw() {
    auto socket = std::make_unique<tcp::socket>(io_);
    socket->connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
    return socket;
  }

  boost::asio::io_context io_;
  std::unique_ptr<RpcServer> server_;
  std::vector<std::shared_ptr<RpcConnection>> accepted_;
  std::vector<proto::Frame> got_, client_got_;
  std::vector<Error> closed_, disconnects_;
  int connects_ = 0;
};

}  // namespace baton::net
