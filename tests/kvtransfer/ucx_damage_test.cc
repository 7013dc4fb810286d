#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "kvtransfer/ucx_transport.h"
#include "kvtransfer/ucx_transport_impl.h"

// What UCX itself would believe, and then end the process: endpoints that are not as they were
// made.
namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Transport> make(const std::string& tls) {
  UcxOptions options;
  options.tls = tls;
  options.net_devices = "lo";
  auto made = make_ucx_transport(options);
  EXPECT_TRUE(made) << made.error().message;
  EXPECT_TRUE((*made)->allocate(1u << 20, Sharing::kNone));
  return std::move(*made);
}

std::string random_bytes(size_t count, std::mt19937& random) {
  std::string bytes(count, 0);
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

class UcxDamageTest : public ::testing::TestWithParam<const char*> {
 protected:
  void expect_refused(const Endpoint& damaged, const char* why) {
    const result<PeerId> peer = ours_->connect(damaged, "peer");
    ASSERT_FALSE(peer) << why;
    EXPECT_THAT(peer.error().message, HasSubstr("peer"));
  }
  // The endpoint with another UCX address on each transport that it has.
  Endpoint with_address(const std::function<std::string(std::string)>& change) {
    Endpoint damaged = theirs_->endpoint();
    ucx::Address address = *ucx::decode_address(damaged.address);
    for (std::string* part : {&address.shared_memory, &address.network}) {
      if (!part->empty()) *part = change(*part);
    }
    damaged.address = encode(address);
    return damaged;
  }

  std::mt19937 random_{1};
  std::unique_ptr<Transport> ours_ = make(GetParam()), theirs_ = make(GetParam());
};

TEST_P(UcxDamageTest, AnAddressOfAnotherShapeIsRefused) {
  for (int i = 0; i < 100; ++i) {
    expect_refused(with_address([&](std::string address) {
                     const char first = address[0];
                     address = random_bytes(address.size(), random_);
                     if (address[0] == first) ++address[0];
                     return address;
                   }),
                   "random address");
  }
  expect_refused(with_address([](std::string address) {
                   address[0] ^= 0x10;  // the version
                   return address;
                 }),
                 "another version of UCX's address");
  expect_refused(with_address([](const std::string&) { return std::string(); }), "no address");
}

TEST_P(UcxDamageTest, AnotherVersionOfUcxIsRefusedByName) {
  Endpoint other = theirs_->endpoint();
  other.software = "ucx 9.9";
  const result<PeerId> peer = ours_->connect(other, "peer");
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().code, Errc::kUnsupported);
  EXPECT_THAT(peer.error().message, HasSubstr("'ucx 9.9'"));
}

TEST_P(UcxDamageTest, WhatIsNotDamagedConnects) {
  EXPECT_TRUE(ours_->connect(theirs_->endpoint(), "peer"));
}

INSTANTIATE_TEST_SUITE_P(Transports, UcxDamageTest, ::testing::Values("sysv", "posix", "tcp"),
                         [](const auto& info) { return std::string(info.param); });

class UcxKeyDamageTest : public UcxDamageTest {};

TEST_P(UcxKeyDamageTest, AKeyThatIsNoneIsRefused) {
  const std::string key = theirs_->endpoint().region.key;
  Endpoint damaged = theirs_->endpoint();
  for (int i = 0; i < 100; ++i) {
    damaged.region.key = random_bytes(key.size(), random_);
    expect_refused(damaged, "random key");
    // Of the right shape, but of no memory that there is; UCX 1.13 survives it of sysv only.
    if (std::string(GetParam()) != "sysv") continue;
    damaged.region.key = key.substr(0, 10) + random_bytes(key.size() - 10, random_);
    expect_refused(damaged, "key of nothing");
  }
  for (size_t bytes = 0; bytes < key.size(); ++bytes) {
    damaged.region.key = key.substr(0, bytes);
    expect_refused(damaged, "key cut short");
  }
  damaged.region.key = key + '\0';
  expect_refused(damaged, "key too long");
}

INSTANTIATE_TEST_SUITE_P(SharedMemory, UcxKeyDamageTest, ::testing::Values("sysv", "posix"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace baton::kvtransfer
