#include "tests/ops/cuda/device_cache.h"

// Recorded work, launched again with other contents in the same memory.
namespace baton::ops {
namespace {

// A layer's worth of operations at a few rows.
class CudaGraph : public OnGpu {
 protected:
  static constexpr int64_t kRows = 8, kHidden = 512, kInter = 1024;
  static inline const CacheShape kShape = {4, 2, 128, 16, half_type()};
  static constexpr int64_t kQkv = (4 + 2 * 2) * 128;

  struct Weights {
    std::unique_ptr<PackedMatrix> qkv, o, gate_up, down;
  };
  std::unique_ptr<PackedMatrix> pack(uint64_t seed, int64_t n, int64_t k) {
    MatrixH w = fast_random(seed, n, k, 1.0f / std::sqrt(static_cast<float>(k)));
    const Tensor part = w.tensor();
    return std::move(fast_.pack(*device_, {&part, 1}, half_type()).value());
  }

  struct Memory {
    explicit Memory(OnGpu& gpu)
        : x(gpu, kRows, kHidden),
          weight(gpu, 1, kHidden),
          cos(gpu, kRows, 64),
          sin(gpu, kRows, 64),
          normed(gpu, kRows, kHidden),
          qkv(gpu, kRows, kQkv),
          q(gpu, kRows, kHidden),
          attn(gpu, kRows, kHidden),
          gate_up(gpu, kRows, 2 * kInter),
          mlp(gpu, kRows, kInter) {}
    DeviceF x, weight, cos, sin;
    DeviceH normed, qkv, q, attn, gate_up, mlp;
  };

  void enqueue(const Ops& ops, const Memory& m, const Weights& w, const Sequences& sequences,
               const PagedKv& kv, std::span<const uint32_t> positions,
               std::span<const float> freq) {
    ops.rope_angles(*stream_, positions, freq, m.cos.tensor(), m.sin.tensor());
    ops.rms_norm(*stream_, m.x.tensor(), m.weight.data(), 1e-5f, m.normed.tensor());
    ops.matmul(*stream_, m.normed.tensor(), *w.qkv, nullptr, m.qkv.tensor(), false);
    ops.rope_and_write_kv(*stream_, {.qkv = m.qkv.tensor(),
                                     .cos = m.cos.tensor(),
                                     .sin = m.sin.tensor(),
                                     .num_heads = kShape.heads,
                                     .sequences = sequences,
                                     .kv = kv,
                                     .q_out = m.q.tensor()});
    ops.attention(*stream_, {.q = m.q.tensor(),
                             .kv = kv,
                             .num_heads = kShape.heads,
                             .scale = 0.0884f,
                             .sequences = sequences,
                             .out = m.attn.tensor()});
    ops.matmul(*stream_, m.attn.tensor(), *w.o, nullptr, m.x.tensor(), true);
    ops.rms_norm(*stream_, m.x.tensor(), m.weight.data(), 1e-5f, m.normed.tensor());
    ops.matmul(*stream_, m.normed.tensor(), *w.gate_up, nullptr, m.gate_up.tensor(), false);
    ops.silu_mul(*stream_, m.gate_up.tensor(), m.mlp.tensor());
    ops.matmul(*stream_, m.mlp.tensor(), *w.down, nullptr, m.x.tensor(), true);
  }
};

TEST_F(CudaGraph, ALaunchedAgainLayerIsTheEagerOne) {
  const Weights w = {pack(1, kQkv, kHidden), pack(2, kHidden, kHidden),
                     pack(3, 2 * kInter, kHidden), pack(4, kHidden, kInter)};
  std::vector<float> some_freq(64);
  for (int i = 0; i < 64; ++i) some_freq[i] = std::pow(10000.0f, -static_cast<float>(i) / 64);
  const Shared<float> freq(*this, some_freq);
  constexpr uint32_t kMost = 2000;  // tokens that the recording is good for
  Random random(5);
  const std::vector<uint32_t> room(kRows, kMost);
  const Batch batch(random, kShape, room, std::vector<uint32_t>(kRows, 1));
  const device::Buffer memory = upload(batch.cache_memory());
  const PagedKv kv = batch.kv_in(memory);

  for (const Ops* ops : {&fast_, &deterministic_}) {
    const Memory m(*this);
    m.weight.set(random_matrix(random, 1, kHidden));
    const Shared<uint32_t> positions(*this, std::vector<uint32_t>(kRows));
    // Recorded with rows that stand at the bucket's end; launched with rows of any lengths, some
    // none at all.
    const DeviceSequences recorded(*this, batch.rows, kShape.block_tokens, kMost);
    std::vector<SequenceRows> there =
        download<SequenceRows>(recorded.memory().data(), batch.rows.size());
    std::vector<SequenceRows> here = batch.rows;
    const auto set_inputs = [&](uint32_t round) {
      Random inputs(100 + round);
      m.x.set(random_matrix(inputs, kRows, kHidden));
      for (uint32_t s = 0; s < kRows; ++s) {
        const auto length = static_cast<uint32_t>(pick(inputs, 1, kMost));
        here[s].position = positions.get()[s] = round == 0 ? kMost - 1 : length - 1;
        here[s].num_rows = round >= 2 && s >= 5 ? 0 : 1;
        there[s].position = here[s].position;
        there[s].num_rows = here[s].num_rows;
      }
      device_->copy(*stream_, recorded.memory().data(), there.data(),
                    there.size() * sizeof(SequenceRows));
      stream_->synchronize();
    };
    const auto run = [&](const DeviceSequences& sequences) {
      enqueue(*ops, m, w, sequences.get(), kv, positions.get(), freq.get());
    };
    set_inputs(0);
    run(recorded);  // warms up: scratch memory, kernels, heuristics
    stream_->synchronize();
    stream_->begin_capture();
    run(recorded);
    const std::unique_ptr<device::Graph> graph = stream_->end_capture();
    ASSERT_NE(graph, nullptr);
    for (uint32_t round = 0; round < 5; ++round) {
      const std::string what = ops->numerics + " round " + std::to_string(round);
      set_inputs(round);
      const DeviceSequences exact(*this, here, kShape.block_tokens);
      run(exact);
      const int64_t rows = round >= 2 ? 5 : kRows;
      const MatrixF x = rows_of(m.x.get(), 0, rows);
      const MatrixH attn = rows_of(m.attn.get(), 0, rows);
      for (int again = 0; again < 2; ++again) {
        set_inputs(round);
        stream_->launch(*graph);
        const MatrixF graph_x = rows_of(m.x.get(), 0, rows);
        const MatrixH graph_attn = rows_of(m.attn.get(), 0, rows);
        expect_near(graph_attn, to_f32(attn), kAttentionBound, what);
        expect_near(graph_x, x, kAttentionBound, what);
        if (ops != &deterministic_) continue;  // a batch may be split otherwise
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(graph_attn, attn, what));
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(graph_x, x, what));
      }
    }
  }
}

// Launches behind each other, and behind eager work, wait for what they read.
TEST_F(CudaGraph, LaunchesFollowEachOther) {
  const int64_t rows = 64, n = 4096;
  Random random(6);
  MatrixF x = random_matrix(random, rows, n);
  MatrixH w = fast_random(7, n, n, 1.0f / std::sqrt(static_cast<float>(n)));
  const Tensor part = w.tensor();
  const auto packed = fast_.pack(*device_, {&part, 1}, half_type()).value();
  const DeviceF sum(*this, x), weight(*this, random_matrix(random, 1, n));
  const DeviceH normed(*this, rows, n);
  const auto step = [&] {
    fast_.rms_norm(*stream_, sum.tensor(), weight.data(), 1e-5f, normed.tensor());
    fast_.matmul(*stream_, normed.tensor(), *packed, nullptr, sum.tensor(), true);
  };
  for (int i = 0; i < 12; ++i) {
    step();
    stream_->synchronize();  // one at a time
  }
  const MatrixF expected = sum.get();
  sum.set(x);
  for (int i = 0; i < 12; ++i) step();
  expect_same_bits(sum.get(), expected, "eager");
  stream_->begin_capture();
  for (int i = 0; i < 3; ++i) step();
  const auto graph = stream_->end_capture();
  ASSERT_NE(graph, nullptr);
  sum.set(x);
  for (int i = 0; i < 3; ++i) step();
  for (int i = 0; i < 2; ++i) stream_->launch(*graph);
  for (int i = 0; i < 3; ++i) step();
  expect_same_bits(sum.get(), expected, "mixed");
}

}  // namespace
}  // namespace baton::ops
