#include "cli/http_address.h"

#include <gtest/gtest.h>

namespace baton::cli {
namespace {

TEST(HttpAddress, TakesBracketsOff) {
  EXPECT_EQ(without_brackets("[::1]"), "::1");
  EXPECT_EQ(without_brackets("::1"), "::1");
  EXPECT_EQ(without_brackets(""), "");
}

TEST(HttpAddress, ReachesAnyOverLoopback) {
  EXPECT_EQ(reachable_host("0.0.0.0"), "127.0.0.1");
  EXPECT_EQ(reachable_host("::"), "::1");
  EXPECT_EQ(reachable_host("192.168.1.5"), "192.168.1.5");
  EXPECT_EQ(reachable_host("fd00::2"), "fd00::2");
  EXPECT_EQ(reachable_host("example.org"), "example.org");
}

}  // namespace
}  // namespace baton::cli
