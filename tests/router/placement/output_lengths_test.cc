#include "router/placement/output_lengths.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

constexpr auto kOwn = LengthModel::End::kOwn;
constexpr uint32_t kMost = 1 << 20;

TEST(OutputLengths, LongPromptsHaveAnswersOfTheirOwn) {
  OutputLengths lengths(2);
  for (int i = 0; i < 500; ++i) {
    lengths.observe(0, 20'000 + i, 20, kOwn);
    lengths.observe(0, 300, 400, kOwn);
  }
  EXPECT_NEAR(lengths.mean(0, 25'000, kMost), 20, 4);
  EXPECT_NEAR(lengths.mean(0, 400, kMost), 400, 20);
  EXPECT_NEAR(lengths.mean(0, 3'000, kMost), 210, 15) << "a size not seen: as the class";
  EXPECT_NEAR(lengths.mean(1, 25'000, kMost), LengthModel::kPriorMean, 3);
  EXPECT_NEAR(lengths.mean_left(0, 400, 300, kMost), 100, 20);
  EXPECT_LE(lengths.mean(0, 400, 50), 50);
}

TEST(OutputLengths, AnyPromptHasASize) {
  OutputLengths lengths(1);
  for (const uint64_t prompt : {uint64_t{0}, uint64_t{1}, uint64_t{127}, uint64_t{128},
                                uint64_t{1} << 15, uint64_t{1} << 40, ~uint64_t{0}}) {
    lengths.observe(0, prompt, 10, kOwn);
    EXPECT_GT(lengths.mean(0, prompt, kMost), 0) << prompt;
  }
}

}  // namespace
}  // namespace baton::router
