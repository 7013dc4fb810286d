// What ranks on GPUs do, over an NCCL that is none: sizes, errors, and who stays away.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <optional>

#include "common/collective/nccl_collective.h"
#include "common/device/cpu/cpu_device.h"
#include "tests/fakes/fake_nccl.h"
#include "tests/fakes/rank_threads.h"

namespace baton::collective {
namespace {

using testing::HasSubstr;
using Ranks = std::unique_ptr<Collective>;

constexpr int kRemoteError = 6;

void* address_of(device::Stream& stream) { return &stream; }

class NcclTest : public testing::Test {
 protected:
  NcclTest() {
    void* const loaded = ::dlopen(BATON_FAKE_NCCL, RTLD_NOW);
    const auto find =
        reinterpret_cast<decltype(&fake_nccl_control)>(::dlsym(loaded, "fake_nccl_control"));
    fake_ = find();
  }
  ~NcclTest() override {
    for (int r = 0; r < 4; ++r) fake_->set_async_error(r, 0);
  }

  NcclOptions options() const {
    return {.library = BATON_FAKE_NCCL, .device = device_.get(), .native_stream = address_of};
  }
  void run_ranks(uint32_t size, const std::function<void(Ranks)>& body,
                 milliseconds timeout = milliseconds(20000)) {
    fakes::run_ranks(
        size, body, timeout,
        [this](uint32_t rank, uint32_t ranks, const Exchange& exchange, milliseconds t) {
          return connect_nccl(rank, ranks, exchange, t, options());
        });
  }
  // What connecting two ranks ends with on each, of which `second` has other options.
  std::vector<Error> refusals(const NcclOptions& first, const NcclOptions& second) {
    fakes::ExchangeHub hub(2);
    std::vector<Error> errors(2);
    const auto connect = [&](uint32_t rank, const NcclOptions& options) {
      const auto made = connect_nccl(rank, 2, hub.of(rank), milliseconds(2000), options);
      if (!made) errors[rank] = made.error();
    };
    std::thread other([&] { connect(1, second); });
    connect(0, first);
    other.join();
    return errors;
  }

  const std::unique_ptr<device::Device> device_ = device::make_cpu_device(1);
  const fakes::FakeNcclControl* fake_ = nullptr;
};

TEST_F(NcclTest, GathersPartsInOrderOfRanks) {
  for (const uint32_t size : {2u, 3u, 4u}) {
    const int gathers = fake_->count("ncclAllGather"), broadcasts = fake_->count("ncclBroadcast");
    constexpr uint32_t kRounds = 60;
    run_ranks(size, [&](Ranks c) {
      EXPECT_EQ(c->size(), size);
      const auto stream = device_->make_stream();
      for (uint32_t round = 0; round < kRounds; ++round) {
        // Of one size each third time; then and now a rank has nothing.
        std::vector<size_t> bytes;
        for (uint32_t r = 0; r < size; ++r) {
          bytes.push_back(round % 3 == 0 ? 64 : (round * 37 + r * 1001) % 5000);
        }
        if (round % 7 == 1) bytes[size - 1] = 0;
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
    EXPECT_GT(fake_->count("ncclAllGather") - gathers, 0);
    EXPECT_LE(fake_->count("ncclAllGather") - gathers, static_cast<int>(size * kRounds / 3));
    EXPECT_GT(fake_->count("ncclBroadcast") - broadcasts, static_cast<int>(size * kRounds / 3));
  }
}

TEST_F(NcclTest, GathersOnTheStreamThatItIsGiven) {
  void* streams[2] = {};
  run_ranks(2, [&](Ranks c) {
    const auto stream = device_->make_stream();
    std::byte part{}, all[2];
    const size_t bytes[] = {1, 1};
    c->all_gather(*stream, &part, bytes, all);
    streams[c->rank()] = stream.get();
  });
  EXPECT_TRUE(fake_->last_stream() == streams[0] || fake_->last_stream() == streams[1]);
}

// The first has all sums; the others go on at once, however late it is.
TEST_F(NcclTest, NobodyWaitsForTheFirstToSum) {
  std::atomic<int> gone_on{0};
  run_ranks(3, [&](Ranks c) {
    for (uint64_t round = 0; round < 50; ++round) {
      std::vector<uint64_t> values = {c->rank(), UINT64_MAX, round};
      if (c->rank() == 0) {
        while (round == 0 && gone_on < 2) std::this_thread::yield();
        c->sum_on_first(values);
        ASSERT_EQ(values, (std::vector<uint64_t>{3, UINT64_MAX - 2, 3 * round}));
      } else {
        c->sum_on_first(values);
        if (round == 49) ++gone_on;
      }
    }
    // Until all have been summed: a rank that ends takes what it has not handed over along.
    std::vector<uint64_t> last = {1};
    c->sum_on_first(last);
    if (c->rank() == 0) gone_on = 10;
    while (gone_on < 10) std::this_thread::yield();
  });
}

TEST_F(NcclTest, ARankThatStaysAwayCountsAsDead) {
  std::atomic<bool> seen{false};
  run_ranks(
      2,
      [&](Ranks c) {
        if (c->rank() == 1) {
          while (!seen) std::this_thread::yield();
          EXPECT_TRUE(c->health()) << "it waits for nothing";
          return;
        }
        const auto stream = device_->make_stream();
        std::byte part{}, all[2];
        const size_t bytes[] = {1, 1};
        std::this_thread::sleep_for(milliseconds(500));
        EXPECT_TRUE(c->health()) << "with nothing under way nobody is awaited";
        c->tell_under_way(true);
        const TimePoint begun = Clock::now();
        c->all_gather(*stream, &part, bytes, all);  // returns, since it is broken off
        EXPECT_GT(to_seconds(Clock::now() - begun), 0.2);
        EXPECT_LT(to_seconds(Clock::now() - begun), 8);
        c->tell_under_way(false);
        ASSERT_FALSE(c->health());
        EXPECT_EQ(c->health().error().message,
                  "a rank is lost: what all compute together has not come on for 300 ms");
        const int gathers = fake_->count("ncclAllGather");
        c->all_gather(*stream, &part, bytes, all);
        EXPECT_EQ(fake_->count("ncclAllGather"), gathers) << "after a failure nothing is done";
        seen = true;
      },
      milliseconds(300));
}

TEST_F(NcclTest, WhatNcclSeesIsTold) {
  run_ranks(2, [&](Ranks c) {
    if (c->rank() == 1) return;
    fake_->set_async_error(0, kRemoteError);
    const TimePoint end = Clock::now() + seconds(10);
    while (c->health() && Clock::now() < end) std::this_thread::sleep_for(milliseconds(5));
    ASSERT_FALSE(c->health());
    EXPECT_EQ(c->health().error().message, "a rank is lost: NCCL: remote error (told by the fake)");
  });
}

TEST_F(NcclTest, WhoGivesUpEndsWhatWaits) {
  std::atomic<bool> ended{false};
  run_ranks(2, [&](Ranks c) {
    if (c->rank() == 1) {
      while (!ended) std::this_thread::yield();
      return;
    }
    const auto stream = device_->make_stream();
    std::byte part{}, all[2];
    const size_t bytes[] = {1, 1};
    std::thread other([&] {
      std::this_thread::sleep_for(milliseconds(50));
      c->give_up(error(Errc::kUnavailable, "rank 1 was killed"));
    });
    c->tell_under_way(true);
    c->all_gather(*stream, &part, bytes, all);
    c->tell_under_way(false);
    EXPECT_EQ(c->health().error().message, "rank 1 was killed");
    other.join();
    ended = true;
  });
}

TEST_F(NcclTest, EachCommunicatorIsEnded) {
  const int aborts = fake_->count("ncclCommAbort");
  run_ranks(3, [](Ranks) {});
  EXPECT_EQ(fake_->count("ncclCommAbort") - aborts, 3);
}

TEST_F(NcclTest, WithoutNcclOneSentenceSaysWhatToInstall) {
  NcclOptions none = options(), other = options();
  none.library = "/nowhere/libnccl.so.2";
  other.library = "libm.so.6";
  const auto both = refusals(none, none);
  EXPECT_THAT(both[0].message,
              HasSubstr("tensor parallelism on GPUs needs NVIDIA's NCCL, which cannot be loaded"));
  EXPECT_THAT(both[0].message, HasSubstr("/nowhere/libnccl.so.2"));
  EXPECT_THAT(both[0].message, HasSubstr("install libnccl2"));
  const auto one = refusals(options(), other);
  EXPECT_EQ(one[1].message, "'libm.so.6' is no NCCL of 2.13 or newer: it has no ncclGetVersion");
  EXPECT_EQ(one[0].message, "rank 1 of 2: " + one[1].message) << "and nobody waits";
}

TEST_F(NcclTest, WhoIsNotConnectedIsNotAwaitedForEver) {
  NcclOptions patient = options();
  patient.connect = milliseconds(300);
  fake_->refuse_next_init(1, kRemoteError);
  const auto errors = refusals(patient, patient);
  EXPECT_EQ(errors[1].message,
            "rank 1 of 2: NCCL connects no ranks: remote error (told by the fake)");
  EXPECT_THAT(errors[0].message,
              HasSubstr("rank 0 of 2 does not find the others: NCCL has not connected them"));
}

}  // namespace
}  // namespace baton::collective
