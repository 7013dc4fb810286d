#include "tests/kvtransfer/line_fit.h"

#include <gtest/gtest.h>

#include <vector>

namespace baton::kvtransfer {
namespace {

TEST(FitLine, AFewLatePointsDoNotMoveIt) {
  std::vector<double> x, y;
  for (int round = 0; round < 4; ++round) {
    for (const double bytes : {1.0, 2.0, 4.0, 8.0, 16.0}) {
      x.push_back(bytes);
      y.push_back(3 + 2 * bytes + (x.size() % 4 == 0 ? 100 : 0));
    }
  }
  const Line line = fit_line(x, y);
  EXPECT_DOUBLE_EQ(line.offset, 3);
  EXPECT_DOUBLE_EQ(line.slope, 2);
}

}  // namespace
}  // namespace baton::kvtransfer
