// How well the latency model fits the steps of a real engine on this CPU.
//   latency_fit --model PATH --threads N --steps 600 [--profile-out FILE]
// Runs steps of random shape: prompt chunks, running sequences, both. On one half it calibrates a
// profile; on the other half that profile, and a model that started from a wrong one and learnt
// online, are each asked before the step is run.
#include <fmt/format.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/device/cpu/cpu_device.h"
#include "common/latency/calibrate.h"
#include "common/latency/step_model.h"
#include "common/ops/cpu/cpu_ops.h"
#include "doctor/step_profiler.h"

namespace baton::latency {
namespace {

struct Options {
  std::string model;
  unsigned threads = 1;
  uint32_t steps = 600;
  uint32_t max_chunk = 512, max_batch = 32, max_context = 1536;
  uint64_t seed = 1;
  double wrong = 3;  // the online model's prior is off by this factor
  bool cpu_time = false;
  std::string profile_out;
};

// For one thread on a shared machine: without the time that others had the core.
Duration thread_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

void report(const char* what, const ErrorWindow& e) {
  fmt::print(
      "  {:<8} {:4} steps   error {:5.1f} % median {:5.1f} % p95   actual / predicted {:.3f}\n",
      what, e.count(), 100 * e.error_quantile(0.5), 100 * e.error_quantile(0.95),
      e.ratio_quantile(0.5));
}

void report(const char* title, const std::array<ErrorWindow, kNumStepKinds>& errors) {
  fmt::print("{}\n", title);
  const char* names[] = {"prefill", "decode", "mixed"};
  for (size_t k = 0; k < kNumStepKinds; ++k) report(names[k], errors[k]);
}

int run(const Options& o) {
  const auto device = device::make_cpu_device(o.threads);
  const ops::Ops ops = ops::cpu_ops();
  const auto runner = doctor::StepProfiler::create(o.model, *device, ops,
                                                   {.max_chunk = o.max_chunk,
                                                    .max_batch = o.max_batch,
                                                    .max_context = o.max_context,
                                                    .seed = o.seed})
                          .value();
  const auto now = [&] { return o.cpu_time ? thread_time() : Clock::now().time_since_epoch(); };
  for (int i = 0; i < 20; ++i) runner->run(now);  // warm up
  std::vector<StepObservation> first, second;
  for (uint32_t i = 0; i < o.steps; ++i) {
    (i < o.steps / 2 ? first : second).push_back(runner->run(now));
  }

  const StepCosts costs = calibrate(first);
  const Profile profile{
      .name = "measured",
      .source = fmt::format("latency_fit on {} with {} threads",
                            std::filesystem::path(o.model).filename().string(), o.threads),
      .kv_bytes_per_token = runner->kv_bytes_per_token(),
      .step = costs,
      .link = {.latency = 50e-6, .byte = 2e-10}};
  fmt::print("{}\n", to_yaml(profile));

  StepCosts wrong = costs;
  for (double* c : {&wrong.fixed, &wrong.row, &wrong.row_beyond, &wrong.context_token,
                    &wrong.attended_pair, &wrong.output}) {
    *c *= o.wrong;
  }
  StepModel online(wrong);
  for (const StepObservation& s : first) online.observe(s.work, s.took);
  std::array<ErrorWindow, kNumStepKinds> fixed, learnt;
  for (const StepObservation& s : second) {
    const auto kind = static_cast<size_t>(s.work.kind());
    fixed[kind].add(step_time(costs, s.work), s.took);
    learnt[kind].add(online.predict(s.work), s.took);
    online.observe(s.work, s.took);
  }
  report("calibrated on the first half, asked about the second", fixed);
  report(fmt::format("online, from a prior {} times too slow", o.wrong).c_str(), learnt);
  if (!o.profile_out.empty()) std::ofstream(o.profile_out) << to_yaml(profile);
  return 0;
}

}  // namespace
}  // namespace baton::latency

int main(int argc, char** argv) {
  baton::latency::Options o;
  CLI::App app("Fits the latency model to this machine's engine");
  app.add_option("--model", o.model, "GGUF file or Hugging Face directory")->required();
  app.add_option("--threads", o.threads, "threads of the device");
  app.add_option("--steps", o.steps, "steps in all");
  app.add_option("--max-chunk", o.max_chunk, "prompt tokens of a step");
  app.add_option("--max-batch", o.max_batch, "running sequences of a step");
  app.add_option("--max-context", o.max_context, "tokens that are there before");
  app.add_option("--seed", o.seed, "of the shapes");
  app.add_option("--wrong", o.wrong, "by what factor the online model's prior is off");
  app.add_flag("--cpu-time", o.cpu_time, "measure the thread's time on a core; with one thread");
  app.add_option("--profile-out", o.profile_out, "where to write the profile");
  CLI11_PARSE(app, argc, argv);
  return baton::latency::run(o);
}
