#include "common/net/rpc.h"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <vector>

namespace baton::net {
namespace {

using boost::asio::ip::tcp;

RpcOptions quick() {
  RpcOptions o;
  o.ping_every = milliseconds(20);
  o.silent_after = milliseconds(150);
  o.reconnect_min = milliseconds(5);
  o.reconnect_max = milliseconds(20);
  return o;
}

proto::Frame cancel(uint64_t request) {
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

  boost::asio::io_context io_;
  std::unique_ptr<RpcServer> server_;
  std::vector<std::shared_ptr<RpcConnection>> accepted_;
  std::vector<proto::Frame> got_, client_got_;
  std::vector<Error> closed_, disconnects_;
  int connects_ = 0;
};

TEST_F(RpcTest, FramesArriveInOrderBothWays) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected() && accepted_.size() == 1; }));
  for (uint64_t i = 0; i < 500; ++i) {
    ASSERT_TRUE(client->send(cancel(i)));
    ASSERT_TRUE(accepted_[0]->send(cancel(i)));
  }
  ASSERT_TRUE(run_until([&] { return got_.size() == 500 && client_got_.size() == 500; }));
  for (uint64_t i = 0; i < 500; ++i) {
    EXPECT_EQ(got_[i].cancel().request(), i);
    EXPECT_EQ(client_got_[i].cancel().request(), i);
  }
}

TEST_F(RpcTest, ClientConnectsWhenTheServerComesLater) {
  uint16_t port;
  {
    tcp::acceptor probe(io_, {boost::asio::ip::make_address("127.0.0.1"), 0});
    port = probe.local_endpoint().port();
  }
  auto client = dial("127.0.0.1:" + std::to_string(port));
  ASSERT_TRUE(run_until([&] { return disconnects_.size() >= 2; }));
  EXPECT_FALSE(client->send(cancel(1)));
  listen(quick(), "127.0.0.1:" + std::to_string(port));
  EXPECT_TRUE(run_until([&] { return client->connected(); }));
}

TEST_F(RpcTest, ClientConnectsAgainAfterTheServerClosed) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 1; }));
  accepted_[0]->close();
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 2 && client->connected(); }));
  EXPECT_EQ(closed_.size(), 1u);
  EXPECT_FALSE(accepted_[0]->send(cancel(1)));
}

TEST_F(RpcTest, CloseSendsWhatIsQueued) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 1; }));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(accepted_[0]->send(cancel(i)));
  accepted_[0]->close();
  EXPECT_TRUE(run_until([&] { return client_got_.size() == 100; }));
}

TEST_F(RpcTest, PingsKeepAnIdleConnectionOpen) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected(); }));
  const auto until = Clock::now() + milliseconds(500);
  run_until([&] { return Clock::now() > until; });
  EXPECT_EQ(connects_, 1);
  EXPECT_TRUE(closed_.empty());
}

TEST_F(RpcTest, SilentPeerIsDead) {
  listen();
  tcp::socket mute(io_);
  mute.connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
  ASSERT_TRUE(run_until([&] { return !closed_.empty(); }));
  EXPECT_NE(closed_[0].message.find("silent"), std::string::npos);
}

TEST_F(RpcTest, GarbageClosesTheConnectionAndNoOther) {
  listen();
  auto client = dial(address());
  tcp::socket hostile(io_);
  hostile.connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
  boost::asio::write(hostile, boost::asio::buffer("GET / HTTP/1.1\r\n\r\n", 18));
  ASSERT_TRUE(run_until([&] { return closed_.size() == 1 && client->connected(); }));
  ASSERT_TRUE(client->send(cancel(9)));
  EXPECT_TRUE(run_until([&] { return got_.size() == 1; }));
}

TEST_F(RpcTest, SlowReaderIsCutOff) {
  RpcOptions options = quick();
  options.max_queued_bytes = 1 << 20;
  options.silent_after = seconds(30);
  listen(options);
  tcp::socket slow(io_);
  slow.connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 1; }));
  proto::Frame big;
  big.mutable_pair_request()->set_hello(std::string(1 << 18, 'x'));
  status sent;
  for (int i = 0; i < 1000 && sent; ++i) {
    sent = accepted_[0]->send(big);
    io_.poll();
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, Errc::kResourceExhausted);
  EXPECT_TRUE(run_until([&] { return closed_.size() == 1; }));
}

TEST_F(RpcTest, ConnectionsAreBounded) {
  listen(quick(), "127.0.0.1:0", 2);
  std::vector<tcp::socket> sockets;
  for (int i = 0; i < 5; ++i) {
    sockets.emplace_back(io_);
    sockets.back().connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
    io_.poll();
  }
  const auto until = Clock::now() + milliseconds(50);
  run_until([&] { return Clock::now() > until; });
  EXPECT_EQ(accepted_.size(), 2u);
}

TEST_F(RpcTest, DestroyedClientCallsNothing) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected(); }));
  client.reset();
  ASSERT_TRUE(run_until([&] { return closed_.size() == 1; }));
  EXPECT_TRUE(disconnects_.empty());
}

TEST_F(RpcTest, ResetDropsThePeerAndTriesAgain) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected(); }));
  client->reset("speaks nonsense");
  EXPECT_FALSE(client->connected());
  EXPECT_TRUE(run_until([&] { return connects_ == 2; }));
}

// An owner may drop client or connection from inside its own callback.
TEST_F(RpcTest, ClientMayBeResetOrDestroyedByItsOwnHandler) {
  listen();
  std::unique_ptr<RpcClient> client;
  int frames = 0;
  client =
      make_rpc_client(io_, address(), quick(),
                      {.on_connected = {},
                       .on_frame =
                           [&, marker = std::make_shared<std::string>("alive")](proto::Frame&&) {
                             if (++frames == 1) {
                               client->reset("again");
                             } else {
                               client.reset();
                             }
                             EXPECT_EQ(*marker, "alive");
                           },
                       .on_disconnected = {}});
  for (size_t n = 1; n <= 2; ++n) {
    ASSERT_TRUE(run_until([&] { return accepted_.size() == n; }));
    ASSERT_TRUE(accepted_[n - 1]->send(cancel(1)));
    ASSERT_TRUE(run_until([&] { return frames == static_cast<int>(n); }));
  }
  EXPECT_TRUE(run_until([&] { return closed_.size() == 2; }));
}

}  // namespace
}  // namespace baton::net
