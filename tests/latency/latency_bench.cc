// What the latency model itself takes: a router asks it for every candidate of every request.
#include <benchmark/benchmark.h>

#include <array>

#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

std::array<StepWork, 64> some_work() {
  SomeSteps steps(1);
  std::array<StepWork, 64> work;
  for (StepWork& w : work) w = steps.any();
  return work;
}

void BM_Predict(benchmark::State& state) {
  const StepModel model(gpu_costs());
  const auto work = some_work();
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(model.predict(work[i++ % work.size()]));
}
BENCHMARK(BM_Predict);

void BM_PredictPrompt(benchmark::State& state) {
  const StepModel model(gpu_costs());
  size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(model.predict_prompt(1000 + i++ % 500, 64, 256));
}
BENCHMARK(BM_PredictPrompt);

void BM_Observe(benchmark::State& state) {
  StepModel model(gpu_costs());
  const auto work = some_work();
  size_t i = 0;
  for (auto _ : state) {
    const StepWork& w = work[i++ % work.size()];
    model.observe(w, step_time(gpu_costs(), w));
  }
  benchmark::DoNotOptimize(model.costs());
}
BENCHMARK(BM_Observe);

void BM_ErrorQuantile(benchmark::State& state) {
  ErrorWindow window;
  SomeSteps steps(2);
  for (int i = 0; i < 1000; ++i) window.add(milliseconds(10), Duration(steps.pick(1, 20'000'000)));
  for (auto _ : state) benchmark::DoNotOptimize(window.error_quantile(0.95));
}
BENCHMARK(BM_ErrorQuantile);

}  // namespace
}  // namespace baton::latency
