#include "common/base/host_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/fakes/temp_dir.h"

namespace baton {
namespace {

constexpr uint64_t kMiB = 1u << 20, kGiB = 1u << 30;

// A machine as /proc and /sys show it.
class HostMemoryTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  HostMemory read() { return read_host_memory(root_.path()); }

  fakes::TempDir root_;
};

TEST_F(HostMemoryTest, IsWhatTheKernelSaysIsAvailable) {
  write("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:   4096 kB\n");
  EXPECT_EQ(read().machine, 4 * kMiB);
  EXPECT_EQ(read().cgroup, UINT64_MAX);
  EXPECT_EQ(read().left(), 4 * kMiB);
}

TEST_F(HostMemoryTest, WhatCannotBeReadIsNoLimit) {
  EXPECT_EQ(read().left(), UINT64_MAX);
  write("proc/meminfo", "nonsense");
  write("proc/self/cgroup", "nonsense\n0::/a\n");
  write("sys/fs/cgroup/a/memory.max", "max\n");
  write("sys/fs/cgroup/a/memory.current", "5\n");
  EXPECT_EQ(read().left(), UINT64_MAX);
}

TEST_F(HostMemoryTest, TheTightestCgroupCountsAndItsFileCacheIsFree) {
  write("proc/self/cgroup", "0::/pod/worker\n");
  write("sys/fs/cgroup/pod/memory.max", "1000\n");
  write("sys/fs/cgroup/pod/memory.current", "900\n");
  write("sys/fs/cgroup/pod/memory.stat", "anon 10\ninactive_file 300\nactive_file 40\nshmem 500\n");
  write("sys/fs/cgroup/pod/worker/memory.max", "2000\n");
  write("sys/fs/cgroup/pod/worker/memory.current", "10\n");
  EXPECT_EQ(read().cgroup, 440u);
  write("sys/fs/cgroup/pod/worker/memory.max", "100\n");
  EXPECT_EQ(read().cgroup, 90u);
  write("sys/fs/cgroup/pod/worker/memory.current", "200\n");  // its limit was lowered
  EXPECT_EQ(read().cgroup, 0u);
}

TEST_F(HostMemoryTest, AContainersCgroupMayBeMountedAsTheRoot) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "1000\n");
  write("sys/fs/cgroup/memory.current", "400\n");
  EXPECT_EQ(read().cgroup, 600u);
}

TEST_F(HostMemoryTest, Version1CountsToo) {
  write("proc/self/cgroup", "6:cpu,cpuacct:/x\n5:memory:/docker/1\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "400\n");
  write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
  EXPECT_EQ(read().cgroup, 700u);
}

TEST(CheckRoom, SaysBothNumbersAndWhoseLimitItIs) {
  const HostMemory machine{.machine = 20 * kGiB, .cgroup = 30 * kGiB};
  EXPECT_TRUE(check_room("the cache", 20 * kGiB, machine));
  const status refused = check_room("the cache", 100000 * kGiB, machine);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kResourceExhausted);
  EXPECT_EQ(refused.error().message,
            "the cache takes 100000.0 GiB of memory, and this machine has 20.0 GiB left");
  const HostMemory cgroup{.machine = 20 * kGiB, .cgroup = kGiB / 2};
  EXPECT_EQ(check_room("the cache", kGiB, cgroup).error().message,
            "the cache takes 1.0 GiB of memory, and this cgroup has 0.5 GiB left");
}

}  // namespace
}  // namespace baton
