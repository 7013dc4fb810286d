// Predicting and learning take nothing from the heap.
#include <gtest/gtest.h>

#include "common/latency/link_model.h"
#include "common/latency/step_model.h"
#include "tests/fakes/count_allocations.h"
#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

TEST(LatencyAllocation, None) {
  SomeSteps steps(1);
  const uint64_t before = allocations;
  StepModel model(gpu_costs());
  LinkModel link({1e-5, 1e-10});
  double sum = 0;
  for (int i = 0; i < 1000; ++i) {
    const StepWork work = steps.any();
    sum += to_seconds(model.predict(work) + model.predict_prompt(1000, 10, 256));
    model.observe(work, milliseconds(10));
    link.observe(work.context, {}, milliseconds(1));
    sum += to_seconds(link.predict(work.context));
  }
  sum += model.error(StepKind::kDecode).error_quantile(0.95);
  EXPECT_GT(sum, 0);
  EXPECT_EQ(allocations, before);
  std::free(::operator new(1));
  EXPECT_GT(allocations, before);  // the count counts
}

}  // namespace
}  // namespace baton::latency
