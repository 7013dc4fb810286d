#include "router/service/name_watch.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <optional>
#include <utility>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

TEST(WorkerPlaceTest, IsAnAddressOrANameToWatch) {
  const auto one = parse_worker_place("10.0.0.1:9000");
  ASSERT_TRUE(one);
  EXPECT_FALSE(one->watched);
  const auto many = parse_worker_place("dns:pool.example.:9000");
  ASSERT_TRUE(many);
  EXPECT_TRUE(many->watched);
  EXPECT_EQ(many->where.host, "pool.example.");
  EXPECT_EQ(many->where.port, "9000");
  const auto service = parse_worker_place("k8s:baton/pool:rpc");
  ASSERT_TRUE(service);
  EXPECT_TRUE(service->watched);
  ASSERT_TRUE(service->service);
  EXPECT_EQ(service->service->service, "pool");
  for (const char* bad :
       {"", "dns:", "dns:pool", "dns:pool:port", "srv:pool:1", "k8s:", "k8s:pool:1"}) {
    EXPECT_FALSE(parse_worker_place(bad)) << bad;
  }
}

TEST(NameWatchTest, SaysWhatTheNameHasAgainAndAgain) {
  boost::asio::io_context io;
  int times = 0;
  std::vector<std::string> last;
  NameWatch watch(io, {"localhost", "9000"}, milliseconds(1), [&](const auto& addresses) {
    last = addresses;
    if (++times == 3) io.stop();
  });
  io.run_for(std::chrono::seconds(20));
  EXPECT_EQ(times, 3);
  ASSERT_FALSE(last.empty());
  // Never both families.
  for (const std::string& address : last) {
    EXPECT_EQ(address.starts_with("["), last[0].starts_with("[")) << address;
    EXPECT_TRUE(address.ends_with(":9000")) << address;
  }
}

TEST(NameWatchTest, IsSilentOnceItIsGone) {
  boost::asio::io_context io;
  bool told = false;
  std::optional<NameWatch> watch(std::in_place, io, net::HostPort{"localhost", "9000"},
                                 milliseconds(1), [&](const auto&) { told = true; });
  watch.reset();
  io.run_for(std::chrono::seconds(20));
  EXPECT_FALSE(told);
}

class WatchedTest : public RouterFixture {};

TEST_F(WatchedTest, WorkersBehindANameServe) {
  add_worker({.role = proto::ROLE_MIXED, .name = "mixed-0"});
  const auto where = net::split_host_port(workers_[0]->address());
  ASSERT_TRUE(where);
  ASSERT_EQ(where->host, "127.0.0.1");
  auto unnamed = std::exchange(workers_, {});  // the fixture would name them
  RouterConfig config;
  // By two names and its address: it is dialled once.
  config.workers = {"dns:127.0.0.1:" + where->port, "dns:127.0.0.1:" + where->port,
                    unnamed[0]->address()};
  start(std::move(config));
  workers_ = std::move(unnamed);
  wait_ready(1);
  const std::string metrics = ask(get("/metrics")).body;
  for (const char* state : {"connecting", "refused"}) {
    const std::string none = fmt::format("role=\"unknown\",state=\"{}\"}} 0\n", state);
    EXPECT_NE(metrics.find(none), std::string::npos) << metrics;
  }
}

}  // namespace
}  // namespace baton::router
