// Connections whose ends prove a secret first.
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "common/net/frame.h"
#include "tests/net/rpc_testing.h"

namespace baton::net {
namespace {

const std::string kSecret(40, 's'), kOther(40, 'o');

RpcOptions with(const Secrets& secrets) {
  RpcOptions o = quick();
  o.secrets = secrets;
  o.connect_timeout = milliseconds(200);
  return o;
}

class RpcSecretTest : public RpcTest {
 protected:
  // A dialler that says these frames and nothing else, and what it hears until it is closed.
  std::string say(const std::vector<proto::Frame>& frames) {
    auto socket = connect_raw();
    std::string out;
    for (const proto::Frame& frame : frames) EXPECT_TRUE(append_frame(frame, out));
    boost::asio::write(*socket, boost::asio::buffer(out));
    std::string heard;
    bool ended = false;
    boost::asio::async_read(*socket, boost::asio::dynamic_buffer(heard),
                            [&](boost::system::error_code, size_t) { ended = true; });
    EXPECT_TRUE(run_until([&] { return ended; }));
    return heard;
  }
};

TEST_F(RpcSecretTest, BothKnowIt) {
  listen(with({kSecret}));
  auto client = dial(address(), with({kOther, kSecret}));
  ASSERT_TRUE(run_until([&] { return client->connected() && accepted_.size() == 1; }));
  EXPECT_EQ(connects_, 1);
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(client->send(cancel(i)));
    ASSERT_TRUE(accepted_[0]->send(cancel(i)));
  }
  EXPECT_TRUE(run_until([&] { return got_.size() == 100 && client_got_.size() == 100; }));
  // Pings keep it: the time to prove is over.
  const auto until = Clock::now() + milliseconds(400);
  run_until([&] { return Clock::now() > until; });
  EXPECT_TRUE(closed_.empty());
  EXPECT_TRUE(disconnects_.empty());
}

TEST_F(RpcSecretTest, OneWithoutItIsToldWhyByEither) {
  const struct {
    Secrets listener, dialler;
    std::string why;
  } cases[] = {{{kSecret}, {kOther}, "its secret is not ours"},
               {{kSecret}, {}, "the secret must be proven first"},
               {{}, {kSecret}, "no secret is set here"}};
  for (const auto& c : cases) {
    disconnects_.clear();
    connects_ = 0;
    accepted_.clear();
    listen(with(c.listener));
    auto client = make_rpc_client(
        io_, address(), with(c.dialler),
        {.on_connected = [this](RpcConnection& r) { ++connects_, (void)r.send(cancel(1)); },
         .on_frame = [this](proto::Frame&& f) { client_got_.push_back(std::move(f)); },
         .on_disconnected = [this](const Error& e) { disconnects_.push_back(e); }});
    ASSERT_TRUE(run_until([&] { return disconnects_.size() >= 2; })) << c.why;
    EXPECT_EQ(disconnects_[0].code, Errc::kPermissionDenied) << disconnects_[0].message;
    EXPECT_NE(disconnects_[0].message.find(c.why), std::string::npos) << disconnects_[0].message;
    EXPECT_EQ(accepted_.size(), c.listener.empty() ? accepted_.size() : 0u);
    EXPECT_EQ(connects_ > 0, c.dialler.empty());
    EXPECT_TRUE(got_.empty());
    EXPECT_TRUE(client_got_.empty());
  }
}

TEST_F(RpcSecretTest, StrangerIsHeardByNobody) {
  listen(with({kSecret}));
  proto::Frame ping, hello, proof, challenge;
  ping.mutable_ping()->set_sequence(1);
  *hello.mutable_auth_hello() = AuthDialler({kSecret}, Nonce{}).hello();
  proof.mutable_auth_proof()->set_proof(std::string(32, 'p'));
  challenge.mutable_auth_challenge()->set_nonce(std::string(32, 'n'));
  for (const auto& frames : std::vector<std::vector<proto::Frame>>{{cancel(1)},
                                                                   {ping},
                                                                   {proof},
                                                                   {challenge},
                                                                   {hello, proof},
                                                                   {hello, hello},
                                                                   {hello, cancel(1)},
                                                                   {hello, ping},
                                                                   {hello, proof, cancel(1)},
                                                                   {hello},
                                                                   {}}) {
    say(frames);
  }
  EXPECT_TRUE(accepted_.empty());
  EXPECT_TRUE(got_.empty());
}

// A dialler says nothing of itself to a listener that proves nothing.
TEST_F(RpcSecretTest, DiallerTellsAStrangerNothing) {
  tcp::acceptor stranger(io_, {boost::asio::ip::make_address("127.0.0.1"), 0});
  auto client = make_rpc_client(
      io_, "127.0.0.1:" + std::to_string(stranger.local_endpoint().port()), with({kSecret}),
      {.on_connected = [this](RpcConnection& r) { ++connects_, (void)r.send(cancel(77)); },
       .on_frame = nullptr,
       .on_disconnected = [this](const Error& e) { disconnects_.push_back(e); }});
  tcp::socket taken(io_);
  std::string heard;
  stranger.async_accept(taken, [&](boost::system::error_code ec) {
    ASSERT_FALSE(ec);
    proto::Frame lie;
    lie.mutable_auth_challenge()->set_nonce(std::string(32, 'n'));
    lie.mutable_auth_challenge()->set_key_id(key_id(kSecret));
    lie.mutable_auth_challenge()->set_proof(std::string(32, 'p'));
    auto out = std::make_shared<std::string>();
    ASSERT_TRUE(append_frame(lie, *out));
    boost::asio::async_write(taken, boost::asio::buffer(*out), [out](auto, size_t) {});
    boost::asio::async_read(taken, boost::asio::dynamic_buffer(heard), [](auto, size_t) {});
  });
  ASSERT_TRUE(run_until([&] { return !disconnects_.empty(); }));
  EXPECT_NE(disconnects_[0].message.find("does not know the secret"), std::string::npos);
  EXPECT_EQ(connects_, 0);
  const auto until = Clock::now() + milliseconds(50);
  run_until([&] { return Clock::now() > until; });
  EXPECT_NE(heard.find(key_id(kSecret)), std::string::npos);
  EXPECT_EQ(heard.find(kSecret), std::string::npos);
}

// It could forge lines of our log otherwise.
TEST_F(RpcSecretTest, AStrangersReasonIsOneLine) {
  tcp::acceptor stranger(io_, {boost::asio::ip::make_address("127.0.0.1"), 0});
  const std::string at = "127.0.0.1:" + std::to_string(stranger.local_endpoint().port());
  auto client = dial(at, with({kSecret}));
  tcp::socket taken(io_);
  std::string out;
  proto::Frame refused;
  refused.mutable_auth_refused()->set_reason("no\n2026 info \x1b[2Jall is well \u2028" +
                                             std::string(1000, 'x'));
  ASSERT_TRUE(append_frame(refused, out));
  stranger.async_accept(taken, [&](boost::system::error_code) {
    boost::asio::async_write(taken, boost::asio::buffer(out), [](auto, size_t) {});
  });
  ASSERT_TRUE(run_until([&] { return !disconnects_.empty(); }));
  const std::string& said = disconnects_[0].message;
  EXPECT_EQ(said.find(at + " refuses us: no?2026 info ?[2Jall is well ???xxx"), 0u) << said;
  EXPECT_LT(said.size(), 300u);
}

TEST_F(RpcSecretTest, SilentStrangerIsCutOff) {
  listen(with({kSecret}));
  const auto begin = Clock::now();
  say({});
  EXPECT_LT(Clock::now() - begin, seconds(2));
}

// As many as there is room for, and they come again as often as they are cut off.
TEST_F(RpcSecretTest, StrangersDoNotTakeTheRoomOfThoseWhoKnowIt) {
  listen(with({kSecret}), "127.0.0.1:0", 4);
  std::vector<std::unique_ptr<tcp::socket>> strangers;
  for (int i = 0; i < 8; ++i) strangers.push_back(connect_raw());
  auto client = dial(address(), with({kSecret}));
  auto other = dial(address(), with({kSecret}));
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 2; }));
  EXPECT_TRUE(disconnects_.empty()) << disconnects_[0].message;
  for (int i = 0; i < 8; ++i) strangers.push_back(connect_raw());
  const auto until = Clock::now() + milliseconds(50);
  run_until([&] { return Clock::now() > until; });
  EXPECT_TRUE(closed_.empty()) << "who has proven it stays";
}

}  // namespace
}  // namespace baton::net
