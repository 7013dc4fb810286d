#include "cli/restart_pause.h"

#include <gtest/gtest.h>

namespace baton::cli {
namespace {

TEST(RestartPause, GrowsToFiveSeconds) {
  RestartPause pause;
  for (const int ms : {100, 200, 400, 800, 1600, 3200, 5000, 5000}) {
    EXPECT_EQ(pause.after(seconds(1)), milliseconds(ms));
  }
}

TEST(RestartPause, IsShortAgainAfterAHealthyLife) {
  RestartPause pause;
  for (int i = 0; i < 10; ++i) pause.after({});
  EXPECT_EQ(pause.after(seconds(59)), seconds(5));
  EXPECT_EQ(pause.after(seconds(60)), milliseconds(100));
  EXPECT_EQ(pause.after(seconds(1)), milliseconds(200));
}

}  // namespace
}  // namespace baton::cli
