#include "doctor/links.h"

#include <gtest/gtest.h>

namespace baton::doctor {
namespace {

constexpr size_t kBytes = 4 << 20;

kvtransfer::UcxOptions options(const char* tls) {
  kvtransfer::UcxOptions ucx;
  ucx.tls = tls;
  ucx.net_devices = "lo";
  return ucx;
}

TEST(Links, EachTransportIsMeasured) {
  for (const auto& [tls, in_force] : {std::pair{"tcp", "tcp"}, std::pair{"all", "sysv"}}) {
    const auto found = measure_here(options(tls), kBytes, milliseconds(50));
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->transport, in_force);
    EXPECT_TRUE(found->software.starts_with("ucx")) << found->software;
    EXPECT_GT(found->bytes_per_second, 1e6);
    EXPECT_GT(found->latency, Duration::zero());
  }
}

TEST(Links, SeveralReadOneSide) {
  const auto side = ReadSide::start(options("tcp"), kBytes);
  ASSERT_TRUE(side) << side.error().message;
  for (int i = 0; i < 3; ++i) {
    kvtransfer::UcxOptions reads = options("tcp");
    reads.is_read = false;
    const auto found =
        measure_reads(reads, kBytes, milliseconds(20),
                      [&](const kvtransfer::Endpoint& mine) -> result<kvtransfer::Endpoint> {
                        BATON_CHECK_OK((*side)->welcome(mine, "a reader"));
                        return (*side)->endpoint();
                      });
    ASSERT_TRUE(found) << found.error().message;
  }
}

TEST(Links, OneSideHasABoundOnReaders) {
  const auto side = ReadSide::start(options("tcp"), kBytes);
  ASSERT_TRUE(side) << side.error().message;
  kvtransfer::UcxOptions reads = options("tcp");
  reads.is_read = false;
  const auto reader = kvtransfer::make_ucx_transport(reads);
  ASSERT_TRUE(reader);
  ASSERT_TRUE((*reader)->allocate(kBytes, kvtransfer::Sharing::kNone));
  size_t welcome = 0;
  while (welcome < 200 && (*side)->welcome((*reader)->endpoint(), "one of many")) ++welcome;
  EXPECT_EQ(welcome, ReadSide::kMostReaders);
}

TEST(Links, WhatNobodyLetsUsReadIsAnError) {
  const auto refused =
      measure_reads(options("tcp"), kBytes, milliseconds(20), [](const kvtransfer::Endpoint&) {
        return result<kvtransfer::Endpoint>(error(Errc::kUnavailable, "not today"));
      });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "not today");
  const auto nothing =
      measure_reads(options("tcp"), kBytes, milliseconds(20), [](const kvtransfer::Endpoint&) {
        return result<kvtransfer::Endpoint>(kvtransfer::Endpoint{});
      });
  EXPECT_FALSE(nothing);
}

}  // namespace
}  // namespace baton::doctor
