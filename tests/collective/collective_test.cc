#include "common/collective/collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>

#include "common/device/cpu/cpu_device.h"
#include "tests/fakes/rank_threads.h"

namespace baton::collective {
namespace {

using fakes::run_ranks;
using testing::HasSubstr;

class CollectiveTest : public ::testing::Test {
 protected:
  const std::unique_ptr<device::Device> device_ = device::make_cpu_device(1);
};

// Parts of different sizes, many times: nobody gets what belongs to another call.
TEST_F(CollectiveTest, GathersPartsInOrderOfRanks) {
  for (const uint32_t size : {2u, 3u, 4u}) {
    run_ranks(size, [&](std::unique_ptr<Collective> c) {
      const auto stream = device_->make_stream();
      for (uint32_t round = 0; round < 200; ++round) {
        std::vector<size_t> bytes;
        for (uint32_t r = 0; r < size; ++r) bytes.push_back(1 + (round * 37 + r * 1001) % 5000);
        const std::vector<std::byte> part(bytes[c->rank()], std::byte(round * 7 + c->rank()));
        std::vector<std::byte> all(std::accumulate(bytes.begin(), bytes.end(), size_t{0}));
        c->all_gather(*stream, part.data(), bytes, all.data());
        ASSERT_TRUE(c->health()) << c->health().error().message;
        size_t at = 0;
        for (uint32_t r = 0; r < size; ++r) {
          for (size_t i = 0; i < bytes[r]; ++i) ASSERT_EQ(all[at++], std::byte(round * 7 + r));
        }
      }
    });
  }
}

TEST_F(CollectiveTest, SumsWrapAround) {
  run_ranks(3, [](std::unique_ptr<Collective> c) {
    std::vector<uint64_t> values = {c->rank(), UINT64_MAX, uint64_t{1} << 63};
    c->sum_on_first(values);
    c->sum_on_first({});
    ASSERT_TRUE(c->health());
    if (c->rank() != 0) return;
    EXPECT_EQ(values, (std::vector<uint64_t>{3, UINT64_MAX - 2, uint64_t{1} << 63}));
  });
}

// Who dies ends it for the others, at once and for good.
TEST_F(CollectiveTest, ALostRankShowsEverywhere) {
  std::atomic<int> lost{0};
  run_ranks(3, [&](std::unique_ptr<Collective> c) {
    std::vector<uint64_t> one = {1};
    c->sum_on_first(one);
    if (c->rank() == 1) return;  // and its connections end
    const TimePoint begun = Clock::now();
    one = {1};
    c->sum_on_first(one);
    one = {1};
    c->sum_on_first(one);
    EXPECT_EQ(one[0], 1u) << "after a failure nothing is done";
    ASSERT_FALSE(c->health());
    EXPECT_EQ(c->health().error().code, Errc::kUnavailable);
    EXPECT_LT(to_seconds(Clock::now() - begun), 10);
    ++lost;
  });
  EXPECT_EQ(lost, 2);
}

TEST_F(CollectiveTest, ARankThatStaysAwayCountsAsDead) {
  run_ranks(
      2,
      [](std::unique_ptr<Collective> c) {
        std::vector<uint64_t> one = {1};
        c->sum_on_first(one);
        if (c->rank() == 0) {
          c->sum_on_first(one);
          EXPECT_FALSE(c->health());
        } else {
          std::this_thread::sleep_for(milliseconds(1500));
        }
      },
      milliseconds(500));
}

TEST_F(CollectiveTest, WhoDoesNotComeIsNamed) {
  const auto refused = connect_gloo(
      1, 2, [](const std::string&) { return error(Errc::kDeadlineExceeded, "rank 0 is silent"); },
      milliseconds(500));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("rank 0 is silent"));
}

// Somebody answers at the right port and does not know what the rank has said.
TEST_F(CollectiveTest, AStrangerIsRecognised) {
  fakes::ExchangeHub hub(2);
  std::thread other([&] {
    (void)connect_gloo(
        1, 2,
        [&](const std::string& mine) -> result<std::vector<std::string>> {
          std::string another = mine;
          if (mine.size() == 16) another[3] ^= 1;  // what it will be recognised by
          return hub.of(1)(another);
        },
        milliseconds(2000));
  });
  const auto refused = connect_gloo(0, 2, hub.of(0), milliseconds(2000));
  other.join();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("a stranger answers for rank 1"));
}

}  // namespace
}  // namespace baton::collective
