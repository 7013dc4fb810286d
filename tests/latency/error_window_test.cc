#include "common/latency/error_window.h"

#include <gtest/gtest.h>

namespace baton::latency {
namespace {

TEST(ErrorWindow, IsPerfectBeforeAnything) {
  const ErrorWindow window;
  EXPECT_EQ(window.ratio_quantile(0.9), 1);
  EXPECT_EQ(window.error_quantile(0.9), 0);
}

TEST(ErrorWindow, GivesQuantilesOfActualOverPredicted) {
  ErrorWindow window;
  for (int i = 1; i <= 101; ++i) window.add(milliseconds(100), milliseconds(i * 2));
  EXPECT_NEAR(window.ratio_quantile(0), 0.02, 1e-6);
  EXPECT_NEAR(window.ratio_quantile(0.5), 1.02, 1e-6);
  EXPECT_NEAR(window.ratio_quantile(0.9), 1.82, 1e-6);
  EXPECT_NEAR(window.ratio_quantile(1), 2.02, 1e-6);
  EXPECT_NEAR(window.error_quantile(1), 1.02, 1e-6);
}

TEST(ErrorWindow, KeepsTheLastOnes) {
  ErrorWindow window;
  for (uint32_t i = 0; i < ErrorWindow::kSize; ++i) window.add(milliseconds(1), milliseconds(9));
  for (uint32_t i = 0; i < ErrorWindow::kSize; ++i) window.add(milliseconds(1), milliseconds(2));
  EXPECT_EQ(window.count(), 2 * ErrorWindow::kSize);
  EXPECT_NEAR(window.ratio_quantile(1), 2, 1e-6);
}

TEST(ErrorWindow, IgnoresWhatHasNoRatio) {
  ErrorWindow window;
  window.add(Duration::zero(), milliseconds(1));
  window.add(milliseconds(1), Duration::zero());
  window.add(milliseconds(-1), milliseconds(1));
  EXPECT_EQ(window.count(), 0u);
}

}  // namespace
}  // namespace baton::latency
