// Connections whose ends show certificates first.
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

#include "common/base/metrics.h"
#include "common/net/frame.h"
#include "tests/fakes/temp_dir.h"
#include "tests/net/certificates.h"
#include "tests/net/rpc_testing.h"

namespace baton::net {
namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

const std::string kSecret(40, 's'), kOther(40, 'o');
using Asked = Authority::Asked;

class RpcTlsTest : public RpcTest {
 protected:
  RpcTlsTest() {
    for (const char* name : {"a", "b"}) std::filesystem::create_directory(dir_ / name);
  }

  RpcOptions with(const TlsFiles& files, const char* name = kTlsWorkerName, Secrets secrets = {}) {
    RpcOptions o = quick();
    auto tls = Tls::load(files, name);
    EXPECT_TRUE(tls) << tls.error().message;
    if (tls) o.tls = *tls;
    o.secrets = std::move(secrets);
    o.metrics = &metrics_;
    o.connect_timeout = seconds(1);
    return o;
  }
  double refused(const std::string& reason) const {
    const std::string text = metrics_.serialize();
    const std::string line = "baton_rpc_refused_total{reason=\"" + reason + "\"} ";
    const size_t at = text.find(line);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + line.size()));
  }
  void let_pass(Duration time) {
    const auto until = Clock::now() + time;
    run_until([&] { return Clock::now() > until; });
  }

  fakes::TempDir dir_;
  Authority ours_{"ours"}, theirs_{"theirs"};
  Metrics metrics_;
};

// A peer that has what certificate it likes, and believes everybody.
ssl::context careless(const std::optional<TlsFiles>& files, int max_version = TLS1_3_VERSION) {
  ssl::context context(ssl::context::tls);
  SSL_CTX_set_max_proto_version(context.native_handle(), max_version);
  SSL_CTX_set_verify(context.native_handle(), SSL_VERIFY_NONE, nullptr);
  if (files) {
    context.use_certificate_chain_file(files->cert.string());
    context.use_private_key_file(files->key.string(), ssl::context::pem);
  }
  return context;
}

TEST_F(RpcTlsTest, BothHaveCertificates) {
  for (const Secrets& secrets : {Secrets{}, Secrets{kSecret}}) {
    accepted_.clear(), got_.clear(), client_got_.clear(), closed_.clear();
    listen(with(ours_.issue(dir_ / "a", "worker", {{kTlsWorkerName}}), kTlsWorkerName, secrets));
    auto client = dial(address(), with(ours_.issue(dir_ / "b", "router", {{kTlsRouterName}}),
                                       kTlsRouterName, secrets));
    ASSERT_TRUE(run_until([&] { return client->connected() && accepted_.size() == 1; }));
    for (uint64_t i = 0; i < 100; ++i) {
      ASSERT_TRUE(client->send(cancel(i)));
      ASSERT_TRUE(accepted_[0]->send(cancel(i)));
    }
    proto::Frame large;
    large.mutable_pair_request()->set_hello(std::string(10u << 20, 'x'));
    ASSERT_TRUE(client->send(large));
    EXPECT_TRUE(run_until([&] { return got_.size() == 101 && client_got_.size() == 100; }));
    let_pass(milliseconds(1200));  // pings keep it: the time to prove is over
    EXPECT_TRUE(closed_.empty());
    EXPECT_TRUE(disconnects_.empty()) << disconnects_[0].message;
    client.reset();
    EXPECT_TRUE(run_until([&] { return closed_.size() == 1; }));
  }
}

TEST_F(RpcTlsTest, SecretStaysOnTop) {
  listen(with(ours_.issue(dir_ / "a", "worker"), kTlsWorkerName, {kSecret}));
  const TlsFiles files = ours_.issue(dir_ / "b", "router");
  auto other = dial(address(), with(files, kTlsRouterName, {kOther}));
  ASSERT_TRUE(run_until([&] { return !disconnects_.empty(); }));
  EXPECT_NE(disconnects_[0].message.find("its secret is not ours"), std::string::npos)
      << disconnects_[0].message;
  EXPECT_GE(refused("wrong_secret"), 1);
  EXPECT_TRUE(accepted_.empty());
}

TEST_F(RpcTlsTest, StrangersAreRefusedByName) {
  const TlsFiles own = ours_.issue(dir_ / "a", "worker");
  listen(with(own));
  const struct {
    const char* what;
    std::optional<TlsFiles> files;
    int max_version = TLS1_3_VERSION;
  } strangers[] = {
      {"another authority", theirs_.issue(dir_ / "b", "other")},
      {"expired", ours_.issue(dir_ / "b", "old",
                              {.from = std::chrono::hours(-2), .until = std::chrono::seconds(-1)})},
      {"not valid yet", ours_.issue(dir_ / "b", "early", {.from = std::chrono::minutes(1)})},
      {"of something else", ours_.issue(dir_ / "b", "name", {.dns_names = {"postgres", "*"}})},
      {"without names", ours_.issue(dir_ / "b", "none", {.dns_names = {}})},
      {"no certificate", {}},
      {"TLS 1.2", own, TLS1_2_VERSION},
  };
  double count = 0;
  for (const auto& s : strangers) {
    ssl::context context = careless(s.files, s.max_version);
    ssl::stream<tcp::socket> stream(io_, context);
    stream.next_layer().connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
    std::string said, heard;
    ASSERT_TRUE(append_frame(cancel(1), said));
    bool ended = false;
    stream.async_handshake(ssl::stream_base::client, [&](error_code ec) {
      if (ec) return void(ended = true);
      boost::asio::async_write(stream, boost::asio::buffer(said), [](error_code, size_t) {});
      boost::asio::async_read(stream, boost::asio::dynamic_buffer(heard),
                              [&](error_code, size_t) { ended = true; });
    });
    EXPECT_TRUE(run_until([&] { return ended && refused("tls") == count + 1; })) << s.what;
    count = refused("tls");
    EXPECT_EQ(heard, "") << s.what;
  }
  let_pass(milliseconds(20));
  EXPECT_TRUE(accepted_.empty());
  EXPECT_TRUE(got_.empty());
}

TEST_F(RpcTlsTest, DiallerTellsNothingToOneThatIsNoWorker) {
  const TlsFiles own = ours_.issue(dir_ / "a", "router");
  const struct {
    TlsFiles files;
    const char* says;
  } strangers[] = {
      {theirs_.issue(dir_ / "b", "other"), "its certificate is not believed"},
      {ours_.issue(dir_ / "b", "old",
                   {.from = std::chrono::hours(-2), .until = std::chrono::seconds(-1)}),
       "certificate has expired"},
      {ours_.issue(dir_ / "b", "router", {.dns_names = {kTlsRouterName}}), "baton-worker"},
  };
  for (const auto& s : strangers) {
    tcp::acceptor acceptor(io_, {boost::asio::ip::make_address("127.0.0.1"), 0});
    ssl::context context = careless(s.files);
    ssl::stream<tcp::socket> stream(io_, context);
    std::string heard;
    bool ended = false;
    acceptor.async_accept(stream.next_layer(), [&](error_code) {
      stream.async_handshake(ssl::stream_base::server, [&](error_code ec) {
        if (ec) return void(ended = true);
        boost::asio::async_read(stream, boost::asio::dynamic_buffer(heard),
                                [&](error_code, size_t) { ended = true; });
      });
    });
    disconnects_.clear();
    const std::string to = "127.0.0.1:" + std::to_string(acceptor.local_endpoint().port());
    auto client = dial(to, with(own, kTlsRouterName, {kSecret}));
    ASSERT_TRUE(run_until([&] { return ended && !disconnects_.empty(); })) << s.says;
    EXPECT_EQ(disconnects_[0].code, Errc::kPermissionDenied);
    EXPECT_EQ(disconnects_[0].message.find(to + ": "), 0u) << disconnects_[0].message;
    EXPECT_NE(disconnects_[0].message.find(s.says), std::string::npos) << disconnects_[0].message;
    EXPECT_EQ(heard, "");
    EXPECT_EQ(connects_, 0);
  }
}

// Its own half of the handshake is done by then: the word comes as an alert.
TEST_F(RpcTlsTest, ADiallerThatIsNotBelievedIsToldSo) {
  const TlsFiles worker = ours_.issue(dir_ / "a", "worker");
  const TlsFiles other = theirs_.issue(dir_ / "b", "other");
  listen(with(worker));
  auto client = dial(address(), with({other.cert, other.key, worker.ca}, kTlsRouterName));
  ASSERT_TRUE(run_until([&] { return !disconnects_.empty(); }));
  EXPECT_EQ(disconnects_[0].code, Errc::kPermissionDenied);
  EXPECT_EQ(disconnects_[0].message.find(address() + ": TLS: "), 0u) << disconnects_[0].message;
  EXPECT_NE(disconnects_[0].message.find("unknown ca"), std::string::npos)
      << disconnects_[0].message;
  EXPECT_TRUE(accepted_.empty());
}

// Each side says which one it is that lacks TLS.
TEST_F(RpcTlsTest, PlainAndTlsDoNotTalk) {
  const TlsFiles files = ours_.issue(dir_ / "a", "worker");
  for (const Secrets& secrets : {Secrets{}, Secrets{kSecret}}) {
    const RpcOptions tls = with(files, kTlsWorkerName, secrets);
    RpcOptions plain = tls;
    plain.tls = nullptr;
    const struct {
      RpcOptions listener, dialler;
      const char* says;
    } cases[] = {{tls, plain, " refuses us: it speaks no TLS, which is needed here"},
                 {plain, tls, " is refused: it speaks no TLS, which is needed here"}};
    for (const auto& c : cases) {
      const double before = std::max(refused("tls"), 0.0);
      disconnects_.clear(), accepted_.clear(), got_.clear(), closed_.clear();
      listen(c.listener);
      auto client = make_rpc_client(
          io_, address(), c.dialler,
          {.on_connected = [](RpcConnection& r) { (void)r.send(cancel(1)); },
           .on_frame = [this](proto::Frame&& f) { client_got_.push_back(std::move(f)); },
           .on_disconnected = [this](const Error& e) { disconnects_.push_back(e); }});
      ASSERT_TRUE(run_until([&] { return !disconnects_.empty() && refused("tls") > before; }))
          << c.says;
      EXPECT_EQ(disconnects_[0].message, address() + c.says);
      EXPECT_EQ(disconnects_[0].code, Errc::kPermissionDenied);
      EXPECT_TRUE(got_.empty());
      EXPECT_TRUE(client_got_.empty());
    }
  }
}

TEST_F(RpcTlsTest, HalfAHandshakeHasADeadlineAndTakesNobodysRoom) {
  listen(with(ours_.issue(dir_ / "a", "worker")), "127.0.0.1:0", 4);
  std::vector<std::unique_ptr<tcp::socket>> strangers;
  for (int i = 0; i < 8; ++i) {
    strangers.push_back(connect_raw());
    if (i % 2 == 0) boost::asio::write(*strangers.back(), boost::asio::buffer("\x16\x03\x01", 3));
  }
  ASSERT_TRUE(run_until([&] { return refused("too_many") == 4; }));
  const TlsFiles files = ours_.issue(dir_ / "b", "router");
  auto client = dial(address(), with(files, kTlsRouterName));
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 1; }));
  EXPECT_TRUE(run_until([&] { return refused("timeout") == 3; })) << "the others gave way";
  EXPECT_EQ(refused("too_many"), 5);
  for (const auto& stranger : strangers) {
    error_code ec;
    char byte;
    stranger->non_blocking(true);
    while (stranger->read_some(boost::asio::buffer(&byte, 1), ec) == 1) {
    }
    EXPECT_NE(ec, boost::asio::error::would_block) << "it was let go";
  }
  EXPECT_TRUE(closed_.empty());
}

// Somebody with a certificate of ours, but without the secret, stands between two that have both.
TEST_F(RpcTlsTest, AProofCannotBePassedOn) {
  const TlsFiles stolen = ours_.issue(dir_ / "b", "stolen");
  listen(with(ours_.issue(dir_ / "a", "worker"), kTlsWorkerName, {kSecret}));
  tcp::acceptor acceptor(io_, {boost::asio::ip::make_address("127.0.0.1"), 0});
  ssl::context context = careless(stolen);
  ssl::stream<tcp::socket> near(io_, context), far(io_, context);
  const auto pass_on = [](auto& from, auto& to) {
    auto room = std::make_shared<std::array<char, 4096>>();
    auto next = std::make_shared<std::function<void()>>();
    *next = [&from, &to, room, next] {
      from.async_read_some(boost::asio::buffer(*room), [&to, room, next](error_code ec, size_t n) {
        if (ec) return void(*next = nullptr);
        boost::asio::async_write(to, boost::asio::buffer(*room, n),
                                 [next](error_code end, size_t) { end ? void() : (*next)(); });
      });
    };
    (*next)();
  };
  acceptor.async_accept(near.next_layer(), [&](error_code) {
    near.async_handshake(ssl::stream_base::server, [&](error_code) {
      far.next_layer().connect({boost::asio::ip::make_address("127.0.0.1"), server_->port()});
      far.async_handshake(ssl::stream_base::client, [&](error_code) {
        pass_on(near, far);
        pass_on(far, near);
      });
    });
  });
  auto client = dial("127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()),
                     with(ours_.issue(dir_ / "a", "router"), kTlsRouterName, {kSecret}));
  ASSERT_TRUE(run_until([&] { return !disconnects_.empty(); }));
  EXPECT_NE(disconnects_[0].message.find("does not know the secret"), std::string::npos)
      << disconnects_[0].message;
  EXPECT_EQ(connects_, 0);
  EXPECT_TRUE(accepted_.empty());
  let_pass(milliseconds(20));
}

// As cert-manager does it: new files under the old names.
TEST_F(RpcTlsTest, ChangedFilesCountForNewConnections) {
  const TlsFiles worker = ours_.issue(dir_ / "a", "worker");
  const RpcOptions options = with(worker);
  listen(options);
  auto before = dial(address(), with(ours_.issue(dir_ / "b", "router"), kTlsRouterName));
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 1; }));
  theirs_.issue(dir_ / "a", "worker");
  const TlsFiles files = theirs_.issue(dir_ / "b", "router");
  auto after = dial(address(), with(files, kTlsRouterName));
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 2; }));
  EXPECT_TRUE(before->connected());
  // What cannot be used changes nothing.
  std::filesystem::resize_file(worker.key, 10);
  auto still = dial(address(), with(files, kTlsRouterName));
  ASSERT_TRUE(run_until([&] { return accepted_.size() == 3; }));
  EXPECT_TRUE(disconnects_.empty()) << disconnects_[0].message;
}

TEST_F(RpcTlsTest, WhatCannotBeUsedIsSaidAtStartUp) {
  const TlsFiles good = ours_.issue(dir_ / "a", "good");
  const TlsFiles other = ours_.issue(dir_ / "a", "other");
  const TlsFiles old = ours_.issue(
      dir_ / "a", "old", {.from = std::chrono::hours(-2), .until = std::chrono::seconds(-1)});
  const TlsFiles early = ours_.issue(dir_ / "a", "early", {.from = std::chrono::minutes(1)});
  const TlsFiles router = ours_.issue(dir_ / "a", "router", {.dns_names = {kTlsRouterName}});
  const TlsFiles open = ours_.issue(dir_ / "a", "open");
  std::filesystem::permissions(open.key, std::filesystem::perms(0644));
  const struct {
    TlsFiles files;
    std::vector<std::string> says;
  } cases[] = {
      {{good.cert, good.key, {}}, {"go together"}},
      {{dir_ / "no.crt", good.key, good.ca}, {"no.crt", "No such file"}},
      {{dir_.path(), good.key, good.ca}, {"tls-cert", "no file"}},
      {{good.key, good.key, good.ca}, {"good.key", "no certificate"}},
      {{good.cert, other.key, good.ca}, {"other.key", "no key of that certificate"}},
      {{good.cert, good.key, good.key}, {"tls-ca", "good.key", "no certificate"}},
      {old, {"old.crt", "expired"}},
      {early, {"early.crt", "not valid yet"}},
      {router, {"router.crt", "lack 'baton-worker'"}},
      {open, {"open.key", "chmod 600"}},
  };
  for (const auto& c : cases) {
    const auto tls = Tls::load(c.files, kTlsWorkerName);
    ASSERT_FALSE(tls) << c.says.back();
    for (const std::string& word : c.says) {
      EXPECT_NE(tls.error().message.find(word), std::string::npos) << tls.error().message;
    }
  }
  EXPECT_TRUE(Tls::load({}, kTlsWorkerName) && *Tls::load({}, kTlsWorkerName) == nullptr);
}

}  // namespace
}  // namespace baton::net
