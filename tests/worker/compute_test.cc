#include "worker/compute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/device/cuda/cuda_device.h"

namespace baton::worker {
namespace {

using testing::HasSubstr;

constexpr const char* kShared = "NCCL_MULTI_RANK_GPU_ENABLE";

class GpusOfRanks : public testing::Test {
 protected:
  GpusOfRanks() { ::unsetenv(kShared); }
  ~GpusOfRanks() override { ::unsetenv(kShared); }

  static result<std::vector<uint32_t>> gpus(uint32_t ranks, const std::string& list,
                                            uint32_t first = 0) {
    WorkerConfig config;
    config.tensor_parallel = ranks;
    config.rank_gpus = list;
    config.gpu = first;
    return gpus_of_ranks(config);
  }
  static std::string refusal(uint32_t ranks, const std::string& list) {
    const auto found = gpus(ranks, list);
    return found ? "" : found.error().message;
  }
};

TEST_F(GpusOfRanks, OneRankHasTheOneThatIsNamed) {
  EXPECT_EQ(gpus(1, "", 3).value(), std::vector<uint32_t>{3});
  EXPECT_EQ(gpus(1, "2", 3).value(), std::vector<uint32_t>{2});
}

TEST_F(GpusOfRanks, WhatIsNoListOfThemIsRefused) {
  for (const char* list : {"a", "0,", ",1", "0 1", "0,-1", "0,1,x", "99999999999,1"}) {
    EXPECT_THAT(refusal(2, list), HasSubstr("is no list of numbers with commas between")) << list;
  }
  EXPECT_EQ(refusal(2, "0"), "rank_gpus '0' names 1 GPUs for 2 ranks");
  EXPECT_EQ(refusal(2, "0,1,2"), "rank_gpus '0,1,2' names 3 GPUs for 2 ranks");
}

TEST_F(GpusOfRanks, NoTwoRanksShareOneUnlessNcclIsToldThatTheyMay) {
  EXPECT_EQ(refusal(2, "1,1"),
            "rank_gpus '1,1' gives a GPU to two ranks: each needs one of its own");
  ::setenv(kShared, "1", 1);
  const auto there_are = device::count_cuda_devices();
  if (there_are && *there_are > 0) {
    EXPECT_EQ(gpus(2, "0,0").value(), (std::vector<uint32_t>{0, 0}));
    EXPECT_EQ(gpus(64, "").value().size(), 64u) << "counted from the first again";
  } else {
    EXPECT_THAT(refusal(2, "0,0"), testing::Not(HasSubstr("two ranks")));
  }
}

TEST_F(GpusOfRanks, MoreRanksThanGpusAreRefused) {
  const auto there_are = device::count_cuda_devices();
  if (!there_are || *there_are == 0) {
    EXPECT_NE(refusal(2, ""), "") << "in the driver's words";
  } else {
    EXPECT_THAT(refusal(64, ""), HasSubstr("tensor_parallel 64 needs a GPU for each rank"));
  }
}

}  // namespace
}  // namespace baton::worker
