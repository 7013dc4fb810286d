#include "worker/kv_devices.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/fakes/temp_dir.h"

namespace baton::worker {
namespace {

using Addresses = std::vector<std::string>;

const net::Interfaces kHost{.addresses = {{"lo", "127.0.0.1", true},
                                          {"eth0", "192.168.1.7"},
                                          {"kv0", "10.0.0.7"},
                                          {"kv0", "fd00::7"},
                                          {"lo", "::1", true}},
                            .default_route = "eth0"};

std::string choose(const Addresses& listen, const Addresses& advertise,
                   const net::Interfaces& interfaces = kHost) {
  return choose_devices(listen, advertise, interfaces, "/nowhere");
}

TEST(KvDevices, AreThoseOfTheAddressThatItListensOn) {
  EXPECT_EQ(choose({"10.0.0.7"}, {}), "kv0");
  EXPECT_EQ(choose({"fd00::7"}, {}), "kv0");
  EXPECT_EQ(choose({"127.0.0.1"}, {}), "lo");
  EXPECT_EQ(choose({"127.0.0.2"}, {}), "lo");
  EXPECT_EQ(choose({"10.0.0.7"}, {"192.168.1.7"}), "kv0");
}

TEST(KvDevices, OfAnyAddressAreThoseThatItIsReachedBy) {
  EXPECT_EQ(choose({}, {"10.0.0.7"}), "kv0");
  EXPECT_EQ(choose({}, {"203.0.113.1"}), "eth0") << "it is not ours: translated on the way";
  EXPECT_EQ(choose({}, {}), "eth0");
}

TEST(KvDevices, WithoutADefaultRouteAreAllButLoopback) {
  net::Interfaces island = kHost;
  island.default_route = "";
  EXPECT_EQ(choose({}, {}, island), "eth0,kv0");
  EXPECT_EQ(choose({}, {}, {}), "lo");
}

TEST(KvDevices, BringTheRdmaPortsOfTheSameCard) {
  const fakes::TempDir sysfs;
  const auto net = sysfs / "class/net/kv0";
  std::filesystem::create_directories(net / "device/infiniband/mlx5_2");
  std::ofstream(net / "dev_port") << "1\n";
  EXPECT_EQ(choose_devices({"10.0.0.7"}, {}, kHost, sysfs.path()), "kv0,mlx5_2:2");
  EXPECT_EQ(choose_devices({"192.168.1.7"}, {}, kHost, sysfs.path()), "eth0");
}

TEST(KvDevices, NoneButLoopbackWithoutTrust) {
  WorkerConfig config;
  config.listen = "127.0.0.1:0";
  EXPECT_EQ(*kv_devices(config), "lo");
  config.ucx_devices = "lo";
  EXPECT_EQ(*kv_devices(config), "lo");
  for (const char* open : {"all", "eth0", "lo,eth0"}) {
    config.ucx_devices = open;
    const auto refused = kv_devices(config);
    ASSERT_FALSE(refused) << open;
    EXPECT_NE(refused.error().message.find("trusted_network"), std::string::npos);
    config.trusted_network = true;
    EXPECT_EQ(*kv_devices(config), open) << "what is asked for wins";
    config.trusted_network = false;
  }
  config.trusted_network = true;
  config.ucx_devices = "auto";
  EXPECT_EQ(*kv_devices(config), "lo") << "it listens there";
}

}  // namespace
}  // namespace baton::worker
