#include "doctor/host.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace baton::doctor {
namespace {

constexpr uint64_t kGib = 1ull << 30;

HostFacts good() {
  HostFacts f;
  f.cpu = "a CPU", f.kernel = "Linux 6.1", f.cores = 8;
  f.memory = {.machine = 64 * kGib, .cgroup = 64 * kGib};
  f.largest_segment = UINT64_MAX, f.shm_free = kGib;
  f.locked_memory = UINT64_MAX, f.descriptors = 1 << 20;
  f.huge_pages = "madvise";
  f.rdma_cards = {"mlx5_0"};
  return f;
}
const Wanted kWanted{
    .device = "cpu", .threads = 4, .weight_bytes = 16 * kGib, .kv_bytes = 8 * kGib};

// Of what `about` is about.
Level level_of(const HostFacts& facts, const Wanted& wanted, const std::string& about) {
  Report report;
  judge_host(facts, wanted, report);
  const auto at =
      std::ranges::find(report.findings(), about, [](const Finding& f) { return f.about; });
  if (at == report.findings().end()) return Level::kFine;
  EXPECT_EQ(at->advice.empty(), at->level == Level::kFine || at->level == Level::kNote) << about;
  return at->level;
}

TEST(JudgeHost, AGoodOneHasNothingToMend) {
  Report report;
  judge_host(good(), kWanted, report);
  EXPECT_EQ(summary(report), "nothing to mend");
}

TEST(JudgeHost, EachWantIsSeen) {
  HostFacts f = good();
  f.memory.cgroup = 20 * kGib;
  EXPECT_EQ(level_of(f, kWanted, "memory"), Level::kError);
  f = good();
  f.cores = 3;
  EXPECT_EQ(level_of(f, kWanted, "CPU"), Level::kWarning) << "fewer than its threads";
  f = good();
  f.quota_cores = 1.5;
  EXPECT_EQ(level_of(f, {.threads = 1}, "CPU"), Level::kWarning) << "none beside the one it takes";
  f = good();
  f.largest_segment = kGib;
  EXPECT_EQ(level_of(f, kWanted, "shared memory"), Level::kError);
  f.shm_free = 9 * kGib;
  EXPECT_EQ(level_of(f, kWanted, "shared memory"), Level::kNote);
  f = good();
  f.descriptors = 1024;
  EXPECT_EQ(level_of(f, kWanted, "descriptors"), Level::kWarning);
  f = good();
  f.huge_pages = "never";
  EXPECT_EQ(level_of(f, kWanted, "huge pages"), Level::kWarning);
}

TEST(JudgeHost, LockedMemoryMattersToCardsAndGpus) {
  HostFacts f = good();
  f.locked_memory = 8 << 20;
  EXPECT_EQ(level_of(f, kWanted, "locked memory"), Level::kWarning);
  f.rdma_cards.clear();
  EXPECT_EQ(level_of(f, kWanted, "locked memory"), Level::kFine);
  EXPECT_EQ(level_of(f, kWanted, "RDMA"), Level::kNote);
  Wanted gpu = kWanted;
  gpu.device = "cuda";
  EXPECT_EQ(level_of(f, gpu, "locked memory"), Level::kWarning);
}

class ReadHost : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  ~ReadHost() override { std::filesystem::remove_all(root_); }
  const std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) / ("host-" + std::to_string(::getpid()));
};

TEST_F(ReadHost, FromTheSystemsFiles) {
  write("proc/cpuinfo", "processor : 0\nmodel name\t: AMD EPYC 9005\n");
  write("proc/sys/kernel/shmmax", "18446744073692774399\n");
  write("sys/fs/cgroup/cpu.max", "150000 100000\n");
  write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  write("sys/class/infiniband/mlx5_1/node_type", "1");
  write("sys/class/infiniband/mlx5_0/node_type", "1");
  const HostFacts f = read_host(root_);
  EXPECT_EQ(f.cpu, "AMD EPYC 9005");
  EXPECT_EQ(f.largest_segment, 18446744073692774399u);
  EXPECT_DOUBLE_EQ(f.quota_cores, 1.5);
  write("proc/self/cgroup", "1:name=systemd:/x\n0::/pods/one\n");
  write("sys/fs/cgroup/pods/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/pods/one/cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(read_host(root_).quota_cores, 0.5);
  EXPECT_EQ(f.huge_pages, "madvise");
  EXPECT_EQ(f.rdma_cards, (std::vector<std::string>{"mlx5_0", "mlx5_1"}));
  EXPECT_GT(f.cores, 0u);
}

TEST_F(ReadHost, WhatIsNotThereIsNoLimit) {
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  const HostFacts f = read_host(root_);
  EXPECT_EQ(f.quota_cores, 0);
  EXPECT_EQ(f.memory.left(), UINT64_MAX);
  EXPECT_TRUE(f.huge_pages.empty() && f.rdma_cards.empty());
}

}  // namespace
}  // namespace baton::doctor
