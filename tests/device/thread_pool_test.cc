#include "common/device/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace baton::device {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const unsigned threads : {1u, 2u, 3u, 5u}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const size_t n : {0u, 1u, 2u, 7u, 1000u}) {
      std::vector<int> runs(n);
      pool.parallel_for(n, [&](size_t i, unsigned thread) {
        ASSERT_LT(thread, threads);
        ++runs[i];
      });
      EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), static_cast<ptrdiff_t>(n));
    }
  }
}

// Each region reads what the one before wrote, and no thread is still in an old one.
TEST(ThreadPool, RegionsFollowOneAnother) {
  ThreadPool pool(3);
  std::vector<uint64_t> values(64, 1);
  for (int region = 0; region < 3000; ++region) {
    const uint64_t sum = std::accumulate(values.begin(), values.end(), uint64_t{0});
    pool.parallel_for(values.size(), [&values, region](size_t i, unsigned) {
      values[i] += values[i] % 3 + static_cast<uint64_t>(region % 2);
    });
    EXPECT_GE(std::accumulate(values.begin(), values.end(), uint64_t{0}), sum);
  }
  std::vector<uint64_t> expected(64, 1);
  for (int region = 0; region < 3000; ++region) {
    for (uint64_t& v : expected) v += v % 3 + static_cast<uint64_t>(region % 2);
  }
  EXPECT_EQ(values, expected);
}

TEST(ThreadPool, WakesSleepingThreads) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than they spin
    std::vector<int> runs(50);
    pool.parallel_for(50, [&](size_t i, unsigned) { ++runs[i]; });
    EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), 50);
  }
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(2);
  std::vector<uint64_t> sums(4);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&pool, &sum = sums[c]] {
      for (int region = 0; region < 200; ++region) {
        std::atomic<uint64_t> part{0};
        pool.parallel_for(16, [&part](size_t i, unsigned) { part += i; });
        sum += part;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const uint64_t sum : sums) EXPECT_EQ(sum, 200u * 120u);
}

// The caller waits for a task of another thread that takes longer than anybody spins.
TEST(ThreadPool, WaitsForASlowTask) {
  ThreadPool pool(2);
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> started{0}, done{0};
    pool.parallel_for(2, [&](size_t, unsigned thread) {
      ++started;
      while (started < 2) std::this_thread::yield();  // each thread has one
      if (thread != 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      ++done;
    });
    EXPECT_EQ(done, 2);
  }
}

TEST(ThreadPool, EndsAtOnceWhetherItsThreadsStartedOrNot) {
  for (int i = 0; i < 300; ++i) ThreadPool pool(4);
}

}  // namespace
}  // namespace baton::device
