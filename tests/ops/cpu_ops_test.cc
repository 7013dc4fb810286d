// Which kernels the CPU's table has, and that its fingerprint says so.
#include "common/ops/cpu/cpu_ops.h"

#include <cstdlib>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/dot_matrix.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

// What whoever runs the tests asks for.
Bf16Products products() {
  const char* cap = std::getenv("BATON_MAX_ISA");
  return bf16_products(cap == nullptr ? "" : cap);
}

template <class T>
bool is_a(const PackedMatrix& m) {
  return dynamic_cast<const T*>(&m) != nullptr;
}

TEST(CpuOps, MultiplyBf16AsTheFingerprintSaysAndF32AlwaysInF32) {
  const Ops ops = cpu_ops();
  EXPECT_EQ(ops.numerics, cpu_numerics(products()));
  Cpu cpu(2);
  MatrixF w(576, 576);
  const Tensor part = w.tensor();
  const auto wide = ops.pack(*cpu.device, {&part, 1}, DType::kF32);
  const auto half = ops.pack(*cpu.device, {&part, 1}, DType::kBF16);
  ASSERT_TRUE(wide && half);
  EXPECT_TRUE(is_a<PanelMatrix>(**wide));
  EXPECT_EQ(is_a<PanelMatrix>(**half), !products().dot);
  EXPECT_EQ(is_a<DotMatrix>(**half), products().dot && products().onednn.empty());
}

TEST(CpuOps, UseTheBestThatTheMachineHasAndTheCapLeaves) {
  EXPECT_EQ(bf16_products("").dot, has_bf16_dot());
  EXPECT_FALSE(bf16_products("avx3").dot);
  EXPECT_FALSE(bf16_products("avx2").dot);
}

TEST(CpuOps, NumericsTellKernelsApart) {
  EXPECT_EQ(cpu_numerics({}), "cpu-f32-chain-1");
  if (!has_bf16_dot()) GTEST_SKIP() << "no AVX512_BF16 on this machine";
  const std::string dot = cpu_numerics({.dot = true});
  EXPECT_TRUE(dot.starts_with("cpu-bf16-dot-1-")) << dot;
  EXPECT_EQ(dot, cpu_numerics({.dot = true}));
  EXPECT_NE(dot, cpu_numerics({.dot = true, .onednn = "brg:avx512_core_bf16_amx_bf16"}));
}

}  // namespace
}  // namespace baton::ops
