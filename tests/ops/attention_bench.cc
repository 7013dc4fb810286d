// Attention alone, as SmolLM2-135M has it (9 heads, 3 KV heads of 64), bf16 cache in blocks of 16
// tokens. Counters are of the best run: on a shared machine the others tell little.
#include <benchmark/benchmark.h>

#include <chrono>
#include <numeric>

#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

constexpr uint32_t kHeads = 9, kKvHeads = 3, kHeadDim = 64, kBlock = 16;

// Sequences of equal length, each layer's cache in memory of its own so that none stays in cache.
struct Setup {
  Setup(uint32_t sequences, uint32_t length, uint32_t rows, uint32_t layers) {
    const uint32_t blocks = (length + kBlock - 1) / kBlock;
    const size_t token = kHeadDim * 2;
    kv = {.dtype = DType::kBF16,
          .block_tokens = kBlock,
          .num_kv_heads = kKvHeads,
          .head_dim = kHeadDim,
          .block_stride = 2 * kKvHeads * kBlock * token * layers,
          .plane_stride = kKvHeads * kBlock * token,
          .head_stride = kBlock * token,
          .token_stride = token};
    memory = device::allocate_host(sequences * blocks * kv.block_stride);  // huge pages
    auto* values = reinterpret_cast<uint16_t*>(memory.data());
    for (size_t i = 0; i < memory.bytes() / 2; ++i) {
      values[i] = f32_to_bf16(static_cast<float>(i * 2654435761u % 2048) / 1024 - 1);
    }
    layer_bytes = 2 * kKvHeads * kBlock * token;
    tables.resize(sequences * blocks);
    for (uint32_t i = 0; i < tables.size(); ++i) tables[i] = BlockId(i * 7919 % tables.size());
    for (uint32_t s = 0; s < sequences; ++s) {
      this->sequences.push_back({s * rows, rows, length - rows, &tables[s * blocks]});
    }
  }
  PagedKv layer(uint32_t i) {
    PagedKv at = kv;
    at.base = memory.data() + i * layer_bytes;
    return at;
  }

  PagedKv kv;
  size_t layer_bytes;
  device::Buffer memory;
  std::vector<BlockId> tables;
  std::vector<SequenceRows> sequences;
};

// Arguments: threads, sequences, length, rows of each sequence.
void BM_Attention(benchmark::State& state) {
  const auto sequences = static_cast<uint32_t>(state.range(1));
  const auto length = static_cast<uint32_t>(state.range(2));
  const auto rows = static_cast<uint32_t>(state.range(3));
  constexpr uint32_t kLayers = 30;
  Setup setup(sequences, length, rows, kLayers);
  const Ops ops = cpu_ops();
  Cpu cpu(static_cast<unsigned>(state.range(0)));
  Random random(2);
  MatrixF q = random_matrix(random, sequences * rows, kHeads * kHeadDim);
  MatrixF out(q.rows, q.cols);
  uint32_t layer = 0;
  double best = 1e9;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    ops.attention(*cpu.stream, {.q = q.tensor(),
                                .kv = setup.layer(layer++ % kLayers),
                                .num_heads = kHeads,
                                .scale = 0.125f,
                                .sequences = Sequences::on_host(setup.sequences),
                                .out = out.tensor()});
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  const double seen = sequences * rows * (length - rows / 2.0);  // (row, token) pairs
  state.counters["best_us"] = best * 1e6;
  state.counters["GFLOP/s"] = 4.0 * kHeads * kHeadDim * seen / best / 1e9;
  state.counters["KV_GB/s"] = 4.0 * kKvHeads * kHeadDim * sequences * length / best / 1e9;
}
BENCHMARK(BM_Attention)
    ->ArgNames({"threads", "sequences", "length", "rows"})
    ->Args({1, 1, 128, 1})
    ->Args({1, 1, 1024, 1})
    ->Args({2, 1, 1024, 1})
    ->Args({1, 1, 8192, 1})
    ->Args({2, 1, 8192, 1})
    ->Args({1, 16, 512, 1})
    ->Args({2, 16, 512, 1})
    ->Args({1, 1, 512, 512})
    ->Args({2, 1, 512, 512})
    ->Args({1, 1, 4096, 256})
    ->Args({2, 1, 4096, 256})
    ->MinTime(0.2)
    ->UseRealTime();

}  // namespace
}  // namespace baton::ops
