#include <gtest/gtest.h>

#include "common/net/rpc.h"

namespace baton::net {
namespace {

TEST(Address, SplitsHostAndPort) {
  const auto v4 = split_host_port("127.0.0.1:80");
  ASSERT_TRUE(v4);
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, "80");
  const auto v6 = split_host_port("[::1]:0");
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->host, "::1");
}

TEST(Address, JoinsHostAndPort) {
  EXPECT_EQ(join_host_port("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(join_host_port("::1", 80), "[::1]:80");
  EXPECT_EQ(join_host_port("localhost", 0), "localhost:0");
}

TEST(Address, RefusesWhatIsNone) {
  for (const char* bad : {"", "host", ":80", "host:", "host:65536", "host:-1", "host:8a", "::1:80",
                          "host:999999999999"}) {
    const auto r = split_host_port(bad);
    ASSERT_FALSE(r) << bad;
    EXPECT_NE(r.error().message.find(std::string("'") + bad + "'"), std::string::npos);
  }
}

TEST(Address, KnowsLoopback) {
  EXPECT_TRUE(is_loopback("localhost"));
  EXPECT_TRUE(is_loopback("127.3.2.1"));
  EXPECT_TRUE(is_loopback("::1"));
  EXPECT_FALSE(is_loopback("10.0.0.1"));
  EXPECT_FALSE(is_loopback("0.0.0.0"));
  EXPECT_FALSE(is_loopback("example"));
}

}  // namespace
}  // namespace baton::net
