// Matrix products with weights that rotate past the cache: a matrix that stays in L3 between runs
// would show figures no model ever sees. The counters are of the best run of each product, which
// is what a machine shared with others can still tell; the times beside them are of all runs.
#include <benchmark/benchmark.h>

#include <chrono>

#include "common/ops/cpu/dot_kernel.h"
#include "tests/ops/ops_testing.h"
#include "tests/ops/roof.h"

namespace baton::ops {
namespace {

constexpr size_t kRotation = size_t{192} << 20;  // bytes of weights in turn

struct Product {
  int64_t n, k;
  bool accumulate;
};

std::unique_ptr<PackedMatrix> random_weights(const Ops& ops, Cpu& cpu, int64_t n, int64_t k) {
  MatrixH w(n, k);
  Random random(1);
  for (uint16_t& v : w.data) v = f32_to_bf16(uniform(random, -0.1f, 0.1f));
  const Tensor t = w.tensor();
  return std::move(*ops.pack(*cpu.device, {&t, 1}, DType::kBF16));
}

// Runs f and keeps the seconds of the fastest run in `best`.
template <class F>
void timed(F&& f, double& best) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  best = std::min(best, seconds);
}

void report_best(benchmark::State& state, double seconds, double bytes, double flop) {
  state.counters["best_ms"] = seconds * 1e3;
  state.counters["GB/s"] = bytes / seconds / 1e9;
  state.counters["GFLOP/s"] = flop / seconds / 1e9;
}

// Arguments: threads, m, n, k.
void BM_Matmul(benchmark::State& state) {
  const int64_t m = state.range(1), n = state.range(2), k = state.range(3);
  const Ops ops = cpu_ops();
  Cpu cpu(static_cast<unsigned>(state.range(0)));
  const size_t copies = kRotation / static_cast<size_t>(2 * n * k) + 1;
  std::vector<std::unique_ptr<PackedMatrix>> weights;
  for (size_t i = 0; i < copies; ++i) weights.push_back(random_weights(ops, cpu, n, k));
  Random random(2);
  MatrixF x = random_matrix(random, m, k), out(m, n);
  size_t turn = 0;
  double best = 1e9;
  for (auto _ : state) {
    const PackedMatrix& w = *weights[turn++ % copies];
    timed([&] { ops.matmul(*cpu.stream, x.tensor(), w, nullptr, out.tensor(), false); }, best);
  }
  report_best(state, best, 2.0 * n * k, 2.0 * m * n * k);
}

void matmul_shapes(benchmark::internal::Benchmark* b) {
  const std::pair<int64_t, int64_t> shapes[] = {{960, 576},  {576, 576},   {3072, 576},
                                                {576, 1536}, {49152, 576}, {4096, 4096}};
  for (const int64_t threads : {1, 2}) {
    for (const auto& [n, k] : shapes) {
      for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 512}) {
        if (m * n * k < int64_t{4} << 30) b->Args({threads, m, n, k});
      }
    }
  }
}
BENCHMARK(BM_Matmul)
    ->ArgNames({"threads", "m", "n", "k"})
    ->Apply(matmul_shapes)
    ->MinTime(0.1)
    ->UseRealTime();

// All products of one step of SmolLM2-135M: 30 layers, fused QKV and gate+up; the head up to 64
// rows, as only the rows that are sampled from need it. Arguments: threads, m.
void BM_ModelStep(benchmark::State& state) {
  const int64_t m = state.range(1);
  const Product layer[] = {
      {960, 576, false}, {576, 576, true}, {3072, 576, false}, {576, 1536, true}};
  const Ops ops = cpu_ops();
  Cpu cpu(static_cast<unsigned>(state.range(0)));
  std::vector<std::unique_ptr<PackedMatrix>> weights;
  for (int i = 0; i < 30; ++i) {
    for (const Product& p : layer) weights.push_back(random_weights(ops, cpu, p.n, p.k));
  }
  const auto head = random_weights(ops, cpu, 49152, 576);
  Random random(2);
  MatrixF x = random_matrix(random, m, 1536), out(m, 3072), logits(m, m <= 64 ? 49152 : 1);
  double best[5] = {1e9, 1e9, 1e9, 1e9, 1e9};  // by product of a layer, and of the head
  double bytes = 0, flop = 0;
  const auto multiply = [&](const PackedMatrix& w, const Tensor& to, bool accumulate, int kind) {
    const Tensor in = x.tensor().slice_cols(0, w.k());
    timed([&] { ops.matmul(*cpu.stream, in, w, nullptr, to, accumulate); }, best[kind]);
    bytes += 2.0 * w.n() * w.k();
    flop += 2.0 * m * w.n() * w.k();
  };
  for (auto _ : state) {
    bytes = flop = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const Tensor to = out.tensor().slice_cols(0, weights[i]->n());
      multiply(*weights[i], to, layer[i % 4].accumulate, static_cast<int>(i % 4));
    }
    if (m <= 64) multiply(*head, logits.tensor(), false, 4);
  }
  const double step = 30 * (best[0] + best[1] + best[2] + best[3]) + (m <= 64 ? best[4] : 0.0);
  report_best(state, step, bytes, flop);
}
BENCHMARK(BM_ModelStep)
    ->ArgNames({"threads", "m"})
    ->ArgsProduct({{1, 2}, {1, 2, 4, 8, 16, 32, 64, 128, 512}})
    ->Unit(benchmark::kMillisecond)
    ->MinTime(0.3)
    ->UseRealTime();

// The roofs. Argument: threads.
void BM_Roof(benchmark::State& state) {
  const auto threads = static_cast<unsigned>(state.range(0));
  for (auto _ : state) {
    state.counters["GB/s"] = measure_read_gbps(threads);
    state.counters["GFLOP/s"] = measure_fma_gflops(threads);
    if (has_bf16_dot()) state.counters["bf16_GFLOP/s"] = measure_dot_gflops(threads);
  }
}
BENCHMARK(BM_Roof)->ArgName("threads")->Arg(1)->Arg(2)->Iterations(1);

}  // namespace
}  // namespace baton::ops
