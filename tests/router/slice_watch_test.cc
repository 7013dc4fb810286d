#include "router/service/slice_watch.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/error.hpp>
#include <fstream>
#include <functional>
#include <future>
#include <optional>

#include "router/discovery/service_place.h"
#include "tests/fakes/temp_dir.h"
#include "tests/net/certificates.h"
#include "tests/router/fake_api_server.h"

namespace baton::router {
namespace {

using Kind = FakeApiServer::Kind;
using Turn = FakeApiServer::Turn;
using Addresses = std::vector<std::string>;

constexpr Duration kShort = milliseconds(100), kNever = std::chrono::hours(1);
const ServicePlace kPlace{"baton", "pool", "9000"};

std::string answer(const std::string& body) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
}
std::string list() {
  return answer(
      R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"5"},"items":[)"
      R"({"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]})"
      "]}");
}
const std::string kWatchBegins = "HTTP/1.1 200 OK\r\n\r\n";  // and ends with the connection

class SliceWatchTest : public testing::Test {
 protected:
  void serve(std::vector<Turn> turns, const std::string& certified = "api.test") {
    net::Authority::Asked asked;
    asked.dns_names = {certified};
    const auto files = authority_.issue(dir_.path(), "api", asked);
    server_.emplace(files, std::move(turns));
    lookup_ = [where = server_->where()](const std::string&, const std::string&) {
      return net::FoundName{.endpoints = {where}, .failed = {}};
    };
  }
  void watch(Duration answer_timeout) {
    std::ofstream(dir_ / "token") << "token\n";
    KubernetesApi api;
    api.server = {"api.test", "443"};
    api.token_file = dir_ / "token";
    api.ca_file = dir_ / "ca.crt";
    api.answer_timeout = answer_timeout;
    api.lookup = lookup_;
    watch_.emplace(io_, kPlace, api, [this](const Addresses& now) { found_.push_back(now); });
  }
  bool eventually(const std::function<bool()>& condition) {
    const TimePoint end = Clock::now() + seconds(20);
    while (!condition()) {
      if (Clock::now() > end) return false;
      io_.restart();
      io_.run_for(milliseconds(5));
    }
    return true;
  }
  // All of it ends, and what it held is let go.
  void stop() {
    const size_t told = found_.size();
    watch_.reset();
    io_.restart();
    io_.run_for(seconds(20));
    EXPECT_TRUE(io_.stopped()) << "something still waits";
    EXPECT_TRUE(eventually([&] { return server_->ended() == server_->begun(); }));
    EXPECT_EQ(found_.size(), told);
  }

  fakes::TempDir dir_;
  net::Authority authority_{"cluster"};
  std::optional<FakeApiServer> server_;
  net::NameLookup lookup_;  // owns what it uses: a look may outlive the test
  std::vector<Addresses> found_;
  boost::asio::io_context io_;
  std::optional<SliceWatch> watch_;
};

TEST_F(SliceWatchTest, AServerThatIsSilentIsGivenUpAndAskedAgain) {
  for (const Kind silent : {Kind::kDeaf, Kind::kHolds}) {
    serve({{.kind = silent}});
    watch(kShort);
    EXPECT_TRUE(eventually([&] { return server_->ended() >= 2; }));
    EXPECT_FALSE(watch_->up());
    EXPECT_TRUE(found_.empty());
    stop();
  }
}

TEST_F(SliceWatchTest, ANameIsNotLookedUpForEver) {
  std::promise<void> release;
  const auto lookups = std::make_shared<std::atomic<int>>(0);
  const auto released = release.get_future().share();
  serve({{.kind = Kind::kDeaf}});
  lookup_ = [released, lookups](const std::string&, const std::string&) {
    ++*lookups;
    released.wait();
    return net::FoundName{.endpoints = {}, .failed = boost::asio::error::host_not_found};
  };
  watch(kShort);
  EXPECT_TRUE(eventually([&] { return *lookups >= 2; }));
  stop();
  release.set_value();
}

TEST_F(SliceWatchTest, IsSilentOnceItIsGoneWhateverItWaitedFor) {
  const std::vector<std::vector<Turn>> waits = {
      {{.kind = Kind::kDeaf}},                           // a handshake
      {{.kind = Kind::kHolds}},                          // a list
      {{.kind = Kind::kHolds, .says = "HTTP/1.1 200"}},  // the rest of its head
      {{.kind = Kind::kEnds, .says = list()}, {.kind = Kind::kHolds}},
      {{.kind = Kind::kEnds, .says = list()}, {.kind = Kind::kHolds, .says = kWatchBegins}},
  };
  for (const auto& turns : waits) {
    serve(turns);
    watch(kNever);
    const size_t asked = turns[0].kind == Kind::kDeaf ? 0 : turns.size();
    ASSERT_TRUE(eventually(
        [&] { return server_->begun() == turns.size() && server_->targets().size() == asked; }));
    stop();
  }
}

TEST_F(SliceWatchTest, IsSilentIfItEndsBeforeItBegan) {
  serve({{.kind = Kind::kDeaf}});
  watch(kNever);
  stop();
  EXPECT_EQ(server_->begun(), 0u);
}

TEST_F(SliceWatchTest, AnotherNamesCertificateIsNotShownTheToken) {
  serve({{.kind = Kind::kHolds}}, "other.test");
  watch(kNever);  // whoever refuses it ends the connection
  ASSERT_TRUE(eventually([&] { return server_->ended() >= 2; }));
  EXPECT_TRUE(server_->targets().empty());
  EXPECT_FALSE(watch_->up());
  stop();
}

TEST_F(SliceWatchTest, WhatHasNoEndIsCutOff) {
  const std::string endless(size_t{17} << 20, ' ');
  serve({{.kind = Kind::kHolds, .says = kWatchBegins + endless},  // for a list
         {.kind = Kind::kEnds, .says = list()},
         {.kind = Kind::kHolds, .says = kWatchBegins + endless},  // for a line
         {.kind = Kind::kHolds, .says = kWatchBegins}});
  watch(kNever);
  ASSERT_TRUE(eventually([&] { return server_->targets().size() == 4 && watch_->up(); }));
  EXPECT_EQ(found_, std::vector<Addresses>{Addresses{"10.0.0.1:9000"}});
  stop();
}

}  // namespace
}  // namespace baton::router
