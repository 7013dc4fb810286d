#include "common/latency/link_model.h"

#include <gtest/gtest.h>

#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

constexpr LinkCosts kLink{.latency = 50e-6, .byte = 1e-10};  // 10 GB/s

TEST(TransferTime, IsLatencyAndBytesAtTheLinksRate) {
  EXPECT_NEAR(to_seconds(transfer_time(kLink, 100'000'000)), 0.01005, 1e-9);
  EXPECT_EQ(transfer_time(kLink, 0), microseconds(50));
}

TEST(TransferTime, SharesTheLinkWithWhatIsOnIt) {
  // Three others as long: a quarter of the rate.
  EXPECT_NEAR(to_seconds(transfer_time(kLink, 1'000'000, {3, 3'000'000})), 50e-6 + 4e-4, 1e-9);
  // Long ones take no more than their share while we last.
  EXPECT_EQ(transfer_time(kLink, 1'000'000, {3, 3'000'000}),
            transfer_time(kLink, 1'000'000, {3, 3'000'000'000}));
  // Short ones are soon through.
  EXPECT_NEAR(to_seconds(transfer_time(kLink, 1'000'000, {3, 3'000})), 50e-6 + 1.003e-4, 1e-9);
}

TEST(TransferTime, NeverFallsWithBytesOrLoad) {
  SomeSteps random(1);
  for (int i = 0; i < 1000; ++i) {
    const size_t bytes = random.pick(0, 1u << 30), more = random.pick(0, 1u << 20);
    const LinkLoad load{static_cast<uint32_t>(random.pick(0, 20)), random.pick(0, 1u << 30)};
    const LinkLoad worse{load.transfers + 1, load.bytes + more};
    EXPECT_LE(transfer_time(kLink, bytes, load), transfer_time(kLink, bytes + more, load));
    EXPECT_LE(transfer_time(kLink, bytes, load), transfer_time(kLink, bytes, worse));
  }
}

TEST(LinkModel, LearnsRateAndLatencyUnderNoiseAndOutliersAndForgets) {
  SomeSteps random(2);
  LinkModel model(kLink);
  EXPECT_EQ(model.predict(1000), transfer_time(kLink, 1000));
  for (const LinkCosts& truth : {LinkCosts{100e-6, 4e-10}, LinkCosts{30e-6, 0.5e-10}}) {
    for (int i = 0; i < 400; ++i) {
      const size_t bytes = size_t{1} << random.pick(10, 27);
      const LinkLoad load{static_cast<uint32_t>(random.pick(0, 3)), random.pick(0, 1u << 24)};
      model.observe(bytes, load, random.noisy(transfer_time(truth, bytes, load), 0.05, 0.1));
    }
    EXPECT_NEAR(model.costs().latency / truth.latency, 1, 0.1);
    EXPECT_NEAR(model.costs().byte / truth.byte, 1, 0.1);
  }
  EXPECT_EQ(model.error().count(), 800u);
}

}  // namespace
}  // namespace baton::latency
