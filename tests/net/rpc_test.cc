#include "common/net/rpc.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <fstream>
#include <future>

#include "common/net/frame.h"
#include "common/net/tcp_connection.h"
#include "tests/net/rpc_testing.h"

namespace baton::net {
namespace {

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(::getpagesize());
}

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

// A name server that hangs: attempts end in time all the same, and add up to one question.
TEST_F(RpcTest, AnAttemptDoesNotWaitForANameServer) {
  listen();
  struct State {
    std::promise<void> answer;
    std::shared_future<void> may_answer = answer.get_future().share();
    std::atomic<int> asked{0};
  };
  const auto state = std::make_shared<State>();
  const auto lookup = [state, port = server_->port()](const std::string& host, const std::string&) {
    EXPECT_EQ(host, "worker.example");
    ++state->asked;
    state->may_answer.wait();
    return FoundName{.endpoints = {{boost::asio::ip::make_address("127.0.0.1"), port}},
                     .failed = {}};
  };
  RpcOptions options = quick();
  options.connect_timeout = milliseconds(20);
  auto client =
      make_rpc_client(io_, "worker.example:1", options,
                      {.on_connected = {},
                       .on_frame = {},
                       .on_disconnected = [this](const Error& e) { disconnects_.push_back(e); }},
                      lookup);
  EXPECT_TRUE(run_until([&] { return disconnects_.size() >= 3 && state->asked > 0; }));
  EXPECT_EQ(state->asked, 1);
  EXPECT_NE(disconnects_.at(0).message.find("worker.example:1: "), std::string::npos);
  state->answer.set_value();
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
  const auto until = Clock::now() + milliseconds(2500);  // beyond silent_after
  run_until([&] { return Clock::now() > until; });
  EXPECT_EQ(connects_, 1);
  EXPECT_TRUE(closed_.empty());
}

TEST_F(RpcTest, SilentPeerIsDead) {
  RpcOptions options = quick();
  options.silent_after = milliseconds(150);
  listen(options);
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
  std::vector<std::unique_ptr<tcp::socket>> sockets;
  int refused = 0;
  char byte;
  for (int i = 0; i < 5; ++i) {
    sockets.push_back(connect_raw());
    sockets.back()->async_wait(tcp::socket::wait_read, [&, s = sockets.back().get()](auto) {
      boost::system::error_code failed;
      s->receive(boost::asio::buffer(&byte, 1), tcp::socket::message_peek, failed);
      if (failed) ++refused;
    });
  }
  EXPECT_TRUE(run_until([&] { return refused == 3; }));
  EXPECT_EQ(accepted_.size(), 2u);
}

TEST_F(RpcTest, BigFramesArriveWhole) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected(); }));
  ASSERT_TRUE(client->send(cancel(1)));
  for (const size_t bytes : {size_t{5} << 20, size_t{200} << 10, size_t{1} << 20}) {
    proto::Frame big;
    big.mutable_pair_request()->set_hello(std::string(bytes, 'x') + "end");
    ASSERT_TRUE(client->send(big));
    ASSERT_TRUE(client->send(cancel(2)));
    ASSERT_TRUE(run_until([&] { return !got_.empty() && got_.back().cancel().request() == 2; }));
    const std::string& hello = got_[got_.size() - 2].pair_request().hello();
    EXPECT_EQ(hello.size(), bytes + 3);
    EXPECT_EQ(hello.substr(bytes), "end");
    got_.clear();
  }
}

TEST_F(RpcTest, AStrangersFirstFrameIsSmall) {
  listen();
  auto client = dial(address());
  ASSERT_TRUE(run_until([&] { return client->connected(); }));
  proto::Frame big;
  big.mutable_pair_request()->set_hello(std::string(kMaxHelloBytes, 'x'));
  ASSERT_TRUE(client->send(big));
  ASSERT_TRUE(run_until([&] { return closed_.size() == 1; }));
  EXPECT_NE(closed_[0].message.find("at most 65536"), std::string::npos) << closed_[0].message;
  EXPECT_TRUE(got_.empty());
}

TEST_F(RpcTest, AnAnnouncedLengthCostsNoMemory) {
  listen(quick(), "127.0.0.1:0", 64);
  std::string bytes;
  ASSERT_TRUE(append_frame(cancel(1), bytes));
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    bytes.push_back(static_cast<char>((kMaxFrameBytes >> (8 * i)) & 0xff));
  }
  bytes += "x";
  const size_t before = resident_bytes();
  std::vector<std::unique_ptr<tcp::socket>> sockets;
  for (size_t i = 0; i < 32; ++i) {
    sockets.push_back(connect_raw());
    boost::asio::write(*sockets.back(), boost::asio::buffer(bytes));
  }
  ASSERT_TRUE(run_until([&] { return got_.size() == sockets.size(); }));
  io_.poll();
  EXPECT_LT(resident_bytes(), before + sockets.size() * kMaxFrameBytes / 4);
}

// A peer that takes the connection and then refuses is not asked many times a second for ever.
TEST_F(RpcTest, BackoffGrowsUntilThePeerProvesGood) {
  RpcOptions options = quick();
  options.reconnect_max = seconds(1);
  listen(options, "127.0.0.1:0", 64);
  std::unique_ptr<RpcClient> client;
  int connects = 0;
  bool good = false;
  client = make_rpc_client(io_, address(), options,
                           {.on_connected =
                                [&](RpcConnection&) {
                                  ++connects;
                                  if (good) client->settled();
                                  client->reset("refused");
                                },
                            .on_frame = {},
                            .on_disconnected = {}});
  const auto until = Clock::now() + milliseconds(300);
  run_until([&] { return Clock::now() > until; });
  EXPECT_GE(connects, 1);
  EXPECT_LE(connects, 8);  // at least 2.5, 5, 10, 20, 40, 80 and 160 ms apart
  good = true;
  EXPECT_TRUE(run_until([&] { return connects >= 30; }));
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
