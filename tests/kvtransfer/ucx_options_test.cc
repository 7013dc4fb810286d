#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "kvtransfer/host_identity.h"
#include "kvtransfer/ucx_transport.h"
#include "kvtransfer/ucx_worker.h"

namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;

// TCP ports that this process listens on.
std::set<unsigned> listening_ports() {
  std::set<std::string> ours;  // socket inodes
  for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    char target[64] = {};
    const ssize_t n = ::readlink(fd.path().c_str(), target, sizeof target - 1);
    const std::string link(target, n > 0 ? static_cast<size_t>(n) : 0);
    if (link.starts_with("socket:[")) ours.insert(link.substr(8, link.size() - 9));
  }
  std::set<unsigned> ports;
  std::ifstream table("/proc/self/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream words(line);
    std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
    words >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >> timeout >>
        inode;
    if (state == "0A" && ours.contains(inode)) {
      ports.insert(
          static_cast<unsigned>(std::stoul(local.substr(local.find(':') + 1), nullptr, 16)));
    }
  }
  return ports;
}

TEST(UcxOptions, ListensOnlyWithinThePortRange) {
  UcxOptions options;
  options.tls = "tcp";
  options.net_devices = "lo";
  options.tcp_port_range = "23400-23499";
  const auto transport = make_ucx_transport(options);
  ASSERT_TRUE(transport) << transport.error().message;
  const std::set<unsigned> ports = listening_ports();
  EXPECT_FALSE(ports.empty());
  for (const unsigned port : ports) {
    EXPECT_GE(port, 23400u);
    EXPECT_LE(port, 23499u);
  }
}

TEST(UcxOptions, SharedMemoryAloneHasPortsForItsMessages) {
  UcxOptions options;
  options.tls = "shm";
  options.net_devices = "lo";
  options.tcp_port_range = "23500-23599";
  const auto transport = make_ucx_transport(options);
  ASSERT_TRUE(transport) << transport.error().message;
  const std::set<unsigned> ports = listening_ports();
  EXPECT_FALSE(ports.empty());
  for (const unsigned port : ports) {
    EXPECT_GE(port, 23500u);
    EXPECT_LE(port, 23599u);
  }
}

TEST(UcxOptions, WhatIsNotThereIsRefusedByName) {
  for (const char* tls : {"cma", "posix,^tcp", "nosuchtransport"}) {
    UcxOptions options;
    options.tls = tls;
    const auto transport = make_ucx_transport(options);
    ASSERT_FALSE(transport) << tls;
    EXPECT_THAT(transport.error().message, HasSubstr(tls));
  }
  UcxOptions options;
  options.tls = "tcp";
  options.net_devices = "nosuchdevice0";
  const auto transport = make_ucx_transport(options);
  ASSERT_FALSE(transport);
  EXPECT_THAT(transport.error().message, HasSubstr("nosuchdevice0"));
}

TEST(UcxOptions, TransportsAreSplitByReach) {
  const auto split = [](const char* tls) {
    const result<SplitTls> s = split_tls(tls);
    return s ? s->shared_memory + "|" + s->network : s.error().message;
  };
  EXPECT_EQ(split("all"), "sysv,posix|^shm");
  EXPECT_EQ(split("tcp"), "|tcp");
  EXPECT_EQ(split("shm"), "sysv,posix|");
  EXPECT_EQ(split("posix,tcp,rc"), "posix|tcp,rc");
}

TEST(HostIdentity, IsStable) {
  EXPECT_FALSE(host_identity().empty());
  EXPECT_EQ(host_identity(), host_identity());
}

}  // namespace
}  // namespace baton::kvtransfer
