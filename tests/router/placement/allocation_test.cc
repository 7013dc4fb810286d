// What is asked for every request and token takes nothing from the heap.
#include <gtest/gtest.h>

#include "router/placement/length_model.h"
#include "router/placement/output_lengths.h"
#include "tests/fakes/count_allocations.h"

namespace baton::router {
namespace {

TEST(PlacementAllocation, LengthsTakeNone) {
  LengthModel model(3);
  OutputLengths outputs(3);
  const uint64_t before = allocations;
  double sum = 0;
  for (uint32_t i = 0; i < 1000; ++i) {
    model.observe(i % 3, i, i % 2 == 0 ? LengthModel::End::kOwn : LengthModel::End::kCut);
    sum += model.mean(i % 3, 500) + model.mean_left(i % 3, i, 2000) + model.survival(i % 3, i, 10);
  }
  for (uint32_t i = 0; i < 1000; ++i) {
    outputs.observe(i % 3, i * 40, i, LengthModel::End::kOwn);
    sum += outputs.mean(i % 3, i * 40, 500);
  }
  EXPECT_GT(sum, 0);
  EXPECT_EQ(allocations, before);
  std::free(::operator new(1));
  EXPECT_GT(allocations, before);  // the count counts
}

}  // namespace
}  // namespace baton::router
