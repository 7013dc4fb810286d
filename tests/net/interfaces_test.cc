#include "common/net/interfaces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "tests/fakes/temp_dir.h"

namespace baton::net {
namespace {

const std::string kHead =
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
const std::string kZeros(32, '0');

std::string route(const std::string& v4, const std::string& v6) {
  const fakes::TempDir folder;
  std::ofstream(folder / "route") << kHead << v4;
  std::ofstream(folder / "ipv6_route") << v6;
  return default_route_interface(folder.path());
}

TEST(Interfaces, TheDefaultRouteIsTheOneWithTheLowestMetric) {
  EXPECT_EQ(route("wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
                  "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
                  "down0\t00000000\t0101A8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n"
                  "kv0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n",
                  ""),
            "eth0");
  EXPECT_EQ(route("kv0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", ""), "");
  EXPECT_EQ(route("eth0\tnonsense\n", ""), "");
}

TEST(Interfaces, WhereThereIsOnlyIpv6ItIsThat) {
  const std::string reject = kZeros + " 00 " + kZeros + " 00 " + kZeros +
                             " ffffffff 00000001 00000000 00200201       lo\n";
  const std::string eth0 = kZeros + " 00 " + kZeros +
                           " 00 fe800000000000000000000000000001 00000400 00000001 00000000 "
                           "00450003     eth0\n";
  EXPECT_EQ(route("", reject + eth0), "eth0");
  EXPECT_EQ(route("", reject), "");
}

TEST(Interfaces, LoopbackIsThere) {
  const auto addresses = read_interfaces().addresses;
  const auto lo = std::ranges::find(addresses, "127.0.0.1", &InterfaceAddress::address);
  ASSERT_NE(lo, addresses.end());
  EXPECT_EQ(lo->interface, "lo");
  EXPECT_TRUE(lo->is_loopback);
  EXPECT_EQ(resolve_host("127.0.0.1"), std::vector<std::string>{"127.0.0.1"});
}

}  // namespace
}  // namespace baton::net
