#include "worker/sessions.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/net/frame.h"

namespace baton::worker {
namespace {

class SessionsTest : public ::testing::Test {
 protected:
  SessionsTest()
      : sessions_(io_, {},
                  {.hello =
                       [] {
                         proto::WorkerHello h;
                         h.set_worker(42);
                         return h;
                       },
                   .on_router = [this](RouterId r) { routers_.push_back(r); },
                   .on_frame = [this](RouterId, proto::Frame&&) { ++frames_; },
                   .on_router_lost = [this](RouterId r) { lost_.push_back(r); },
                   .on_pair = [](const proto::PairRequest& request,
                                 proto::PairReply& reply) -> result<WorkerId> {
                     if (request.hello() != "good") {
                       return error(Errc::kUnsupported, "other model");
                     }
                     reply.set_hello("mine");
                     return WorkerId(9);
                   },
                   .on_peer_lost = [this](WorkerId w) { lost_peers_.push_back(w); }}) {
    const status listening = sessions_.listen("127.0.0.1:0");
    EXPECT_TRUE(listening) << listening.error().message;
  }

  template <class Done>
  bool run_until(Done done, Duration limit = seconds(5)) {
    const auto end = Clock::now() + limit;
    while (!done() && Clock::now() < end) io_.run_one_for(milliseconds(5));
    return done();
  }

  // A client whose first frame is `first`.
  struct Guest {
    std::unique_ptr<net::RpcClient> client;
    std::vector<proto::Frame> got;
    int disconnects = 0;
  };
  std::unique_ptr<Guest> visit(const proto::Frame& first) {
    auto guest = std::make_unique<Guest>();
    Guest* g = guest.get();
    net::RpcOptions options;
    options.reconnect_min = options.reconnect_max = seconds(60);
    g->client = net::make_rpc_client(
        io_, "127.0.0.1:" + std::to_string(sessions_.port()), options,
        {.on_connected = [first](net::RpcConnection& c) { (void)c.send(first); },
         .on_frame = [g](proto::Frame&& f) { g->got.push_back(std::move(f)); },
         .on_disconnected = [g](const Error&) { ++g->disconnects; }});
    return guest;
  }
  static proto::Frame router_hello(uint64_t id, uint32_t protocol = 1) {
    proto::Frame f;
    f.mutable_router_hello()->set_router(id);
    f.mutable_router_hello()->set_protocol_min(protocol);
    f.mutable_router_hello()->set_protocol_max(protocol);
    return f;
  }
  static proto::Frame pair_request(const std::string& hello) {
    proto::Frame f;
    f.mutable_pair_request()->set_hello(hello);
    return f;
  }

  boost::asio::io_context io_;
  std::vector<RouterId> routers_, lost_;
  std::vector<WorkerId> lost_peers_;
  int frames_ = 0;
  Sessions sessions_;
};

TEST_F(SessionsTest, RouterIsWelcomedAndMissed) {
  auto router = visit(router_hello(5));
  ASSERT_TRUE(run_until([&] { return router->got.size() == 1; }));
  EXPECT_EQ(router->got[0].worker_hello().worker(), 42u);
  EXPECT_EQ(routers_, std::vector{RouterId(5)});
  router->client.reset();
  ASSERT_TRUE(run_until([&] { return !lost_.empty(); }));
  EXPECT_EQ(lost_, std::vector{RouterId(5)});
  EXPECT_EQ(sessions_.num_routers(), 0u);
}

// Two addresses that lead here: were the older connection given up for the newer, the router would
// dial that again, and so on for ever.
TEST_F(SessionsTest, ARouterThatIsHereIsSentAwayWhereItComesByAnotherAddress) {
  const auto by = [](const std::string& address) {
    proto::Frame f = router_hello(5);
    f.mutable_router_hello()->set_dialled(address);
    return f;
  };
  auto first = visit(by("a:1"));
  ASSERT_TRUE(run_until([&] { return first->got.size() == 1; }));
  auto other = visit(by("b:1"));
  ASSERT_TRUE(run_until([&] { return other->disconnects == 1; }));
  ASSERT_EQ(other->got.size(), 1u) << "it must see who is here";
  EXPECT_EQ(other->got[0].worker_hello().worker(), 42u);
  EXPECT_EQ(first->disconnects, 0);
  EXPECT_TRUE(lost_.empty());
  auto again = visit(by("a:1"));
  ASSERT_TRUE(run_until([&] { return again->got.size() == 1 && first->disconnects == 1; }));
  EXPECT_EQ(sessions_.num_routers(), 1u);
}

TEST_F(SessionsTest, NewerConnectionOfARouterReplacesTheOlder) {
  auto first = visit(router_hello(5));
  ASSERT_TRUE(run_until([&] { return first->got.size() == 1; }));
  auto second = visit(router_hello(5));
  ASSERT_TRUE(run_until([&] { return second->got.size() == 1 && first->disconnects == 1; }));
  EXPECT_EQ(lost_.size(), 1u);  // what ran over the first is over
  EXPECT_EQ(sessions_.num_routers(), 1u);
  second->client.reset();
  ASSERT_TRUE(run_until([&] { return lost_.size() == 2; }));
}

TEST_F(SessionsTest, OtherProtocolIsSentAway) {
  auto router = visit(router_hello(5, 99));
  ASSERT_TRUE(run_until([&] { return router->disconnects == 1; }));
  EXPECT_TRUE(routers_.empty());
}

TEST_F(SessionsTest, NonsenseFirstIsSentAway) {
  proto::Frame frame;
  frame.mutable_cancel()->set_request(1);
  auto guest = visit(frame);
  ASSERT_TRUE(run_until([&] { return guest->disconnects == 1; }));
  EXPECT_EQ(frames_, 0);
}

TEST_F(SessionsTest, PeerPairsAndIsMissed) {
  auto peer = visit(pair_request("good"));
  ASSERT_TRUE(run_until([&] { return peer->got.size() == 1; }));
  EXPECT_EQ(peer->got[0].pair_reply().hello(), "mine");
  peer->client.reset();
  ASSERT_TRUE(run_until([&] { return !lost_peers_.empty(); }));
  EXPECT_EQ(lost_peers_, std::vector{WorkerId(9)});
}

TEST_F(SessionsTest, EndOfAPeersOldConnectionLeavesTheNewPairAlone) {
  auto old = visit(pair_request("good"));
  ASSERT_TRUE(run_until([&] { return old->got.size() == 1; }));
  auto fresh = visit(pair_request("good"));
  ASSERT_TRUE(run_until([&] { return fresh->got.size() == 1; }));
  old->client.reset();
  ASSERT_TRUE(run_until([&] { return sessions_.num_guests() == 1; }));
  EXPECT_TRUE(lost_peers_.empty());
  fresh->client.reset();
  ASSERT_TRUE(run_until([&] { return !lost_peers_.empty(); }));
  EXPECT_EQ(lost_peers_, std::vector{WorkerId(9)});
}

TEST_F(SessionsTest, DroppedPeerIsDisconnected) {
  auto first = visit(pair_request("good"));
  auto second = visit(pair_request("good"));
  auto router = visit(router_hello(5));
  ASSERT_TRUE(
      run_until([&] { return first->got.size() + second->got.size() + router->got.size() == 3; }));
  sessions_.drop_peer(WorkerId(9));
  ASSERT_TRUE(run_until([&] { return first->disconnects == 1 && second->disconnects == 1; }));
  ASSERT_TRUE(run_until([&] { return sessions_.num_guests() == 1; }));
  EXPECT_TRUE(lost_peers_.empty()) << "who drops it knows";
  EXPECT_EQ(router->disconnects, 0);
}

TEST_F(SessionsTest, PeerThatDoesNotFitIsToldWhy) {
  auto peer = visit(pair_request("bad"));
  ASSERT_TRUE(run_until([&] { return peer->disconnects == 1; }));
  ASSERT_EQ(peer->got.size(), 1u);
  EXPECT_EQ(peer->got[0].pair_reply().error(), "other model");
}

TEST_F(SessionsTest, RefusalIsLoggedOnceUntilItPairs) {
  const auto log = std::make_shared<std::ostringstream>();
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(*log)));
  const auto refusals = [&] {
    size_t n = 0;
    for (size_t at = 0; (at = log->str().find("no pair with", at)) != std::string::npos; ++at) ++n;
    return n;
  };
  const auto try_to_pair = [&](const char* hello) {
    auto peer = visit(pair_request(hello));
    EXPECT_TRUE(run_until([&] { return peer->got.size() == 1; }));
  };
  for (int i = 0; i < 3; ++i) try_to_pair("bad");
  EXPECT_EQ(refusals(), 1u);
  try_to_pair("good");
  try_to_pair("bad");
  EXPECT_EQ(refusals(), 2u);
  spdlog::set_default_logger(before);
}

TEST_F(SessionsTest, SilentGuestIsCutOff) {
  net::RpcOptions options;
  options.reconnect_min = options.reconnect_max = seconds(60);
  int disconnects = 0;
  auto mute = net::make_rpc_client(io_, "127.0.0.1:" + std::to_string(sessions_.port()), options,
                                   {.on_connected = {},
                                    .on_frame = {},
                                    .on_disconnected = [&](const Error&) { ++disconnects; }});
  EXPECT_TRUE(run_until([&] { return disconnects == 1; }));
}

TEST_F(SessionsTest, FrameThatIsTooLongEndsTheConnection) {
  auto router = visit(router_hello(5));
  ASSERT_TRUE(run_until([&] { return router->got.size() == 1; }));
  proto::Frame frame;
  frame.mutable_failed()->set_message(std::string(20u << 20, 'x'));
  sessions_.send(RouterId(5), frame);
  ASSERT_TRUE(run_until([&] { return router->disconnects == 1 && !lost_.empty(); }));
  EXPECT_EQ(lost_, std::vector{RouterId(5)});
}

TEST_F(SessionsTest, SendToAnAbsentRouterIsDropped) {
  sessions_.send(RouterId(77), router_hello(1));
  SUCCEED();
}

// It is closed, but what waits to be sent may take a second: what it says until then is the past's.
TEST_F(SessionsTest, AReplacedConnectionIsNotHeard) {
  boost::asio::ip::tcp::socket deaf(io_);  // takes nothing of what it is sent
  deaf.connect({boost::asio::ip::make_address("127.0.0.1"), sessions_.port()});
  const auto say = [&](const proto::Frame& frame) {
    std::string bytes;
    ASSERT_TRUE(net::append_frame(frame, bytes));
    boost::asio::write(deaf, boost::asio::buffer(bytes));
  };
  say(router_hello(5));
  ASSERT_TRUE(run_until([&] { return routers_.size() == 1; }));
  proto::Frame big;
  big.mutable_failed()->set_message(std::string(15u << 20, 'x'));
  sessions_.send(RouterId(5), big);
  run_until([] { return false; }, milliseconds(50));

  auto second = visit(router_hello(5));
  ASSERT_TRUE(run_until([&] { return second->got.size() == 1; }));
  proto::Frame cancel;
  cancel.mutable_cancel()->set_request(1);
  say(cancel);
  run_until([&] { return frames_ > 0; }, milliseconds(200));
  EXPECT_EQ(frames_, 0);
}

}  // namespace
}  // namespace baton::worker
