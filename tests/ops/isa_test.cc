#include "common/ops/cpu/isa.h"

#include <cstdlib>
#include <stdexcept>

#include "tests/ops/cache_testing.h"

namespace baton::ops {
namespace {

class Isa : public testing::Test {
 protected:
  void TearDown() override {
    unsetenv("BATON_MAX_ISA");
    cpu_ops();  // lifts the cap
  }
};

TEST_F(Isa, EnvironmentCapsIt) {
  setenv("BATON_MAX_ISA", "avx2", 1);
  cpu_ops();
  EXPECT_EQ(isa_in_force(), "avx2");
  EXPECT_EQ(cpu_ops().numerics, cpu_numerics({}));
  setenv("BATON_MAX_ISA", "sse9", 1);
  EXPECT_THROW(cpu_ops(), std::runtime_error);
  unsetenv("BATON_MAX_ISA");
  EXPECT_FALSE(cpu_ops().numerics.empty());
}

// On a machine with AVX-512 this compares the two; elsewhere it runs the one twice.
TEST_F(Isa, EveryInstructionSetGivesTheSameBits) {
  const CacheShape shape = {6, 2, 80, 16, DType::kBF16};
  MatrixF results[2] = {MatrixF(70, 480), MatrixF(70, 480)};
  MatrixF products[2] = {MatrixF(70, 300), MatrixF(70, 300)};
  MatrixF activations[2] = {MatrixF(70, 150), MatrixF(70, 150)};
  MatrixF norms[2] = {MatrixF(70, 300), MatrixF(70, 300)};
  const char* caps[2] = {"avx2", "avx3"};
  for (int i = 0; i < 2; ++i) {
    setenv("BATON_MAX_ISA", caps[i], 1);
    const Ops ops = cpu_ops();
    Random random(1);
    Cpu cpu(2);
    Cache cache(random, shape, {600});
    cache.fill(random, 0, 600);
    MatrixF q = random_matrix(random, 70, 480), w = random_matrix(random, 300, 480, 0.1f);
    const SequenceRows seq = {0, 70, 530, cache.table(0)};
    ops.attention(*cpu.stream, {.q = q.tensor(),
                                .kv = cache.kv(),
                                .num_heads = shape.heads,
                                .scale = 0.1f,
                                .sequences = Sequences::on_host({&seq, 1}),
                                .out = results[i].tensor()});
    const Tensor part = w.tensor();
    const auto packed = ops.pack(*cpu.device, {&part, 1}, DType::kBF16);
    ops.matmul(*cpu.stream, q.tensor(), **packed, nullptr, products[i].tensor(), false);
    ops.silu_mul(*cpu.stream, products[i].tensor(), activations[i].tensor());
    ops.rms_norm(*cpu.stream, products[i].tensor(), w.row(0), 1e-5f, norms[i].tensor());
  }
  const auto same = [](const MatrixF& a, const MatrixF& b, const char* what) {
    expect_same_bits(a.data.data(), b.data.data(), a.data.size(), what);
  };
  same(results[0], results[1], "attention");
  same(products[0], products[1], "matmul");
  same(activations[0], activations[1], "silu");
  same(norms[0], norms[1], "norm");
}

}  // namespace
}  // namespace baton::ops
