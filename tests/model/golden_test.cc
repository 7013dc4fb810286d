// The right tokens: Baton's logits against those of transformers in float32.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "tests/fakes/quick_start_model.h"
#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

// How well positions agree, each with the golden tokens before it (teacher forcing).
struct Agreement {
  size_t positions = 0;
  size_t misses = 0;
  float widest_miss = 0;    // golden top-2 gap of a position whose top-1 differs
  float largest_delta = 0;  // |logit - golden| over the golden top ids

  double rate() const { return 1.0 - static_cast<double>(misses) / static_cast<double>(positions); }
};

void compare(const Golden& golden, uint32_t position, std::span<const float> logits, Agreement* a) {
  const auto& ids = golden.top_ids[position];
  for (size_t i = 0; i < ids.size(); ++i) {
    const float delta = std::abs(logits[ids[i]] - golden.top_logits[position][i]);
    a->largest_delta = std::max(a->largest_delta, delta);
  }
  ++a->positions;
  if (argmax(logits) == ids[0]) return;
  ++a->misses;
  a->widest_miss = std::max(a->widest_miss, golden.gap(position));
  std::cout << "  " << golden.name << ", position " << position << ": " << argmax(logits)
            << " instead of " << ids[0] << ", golden gap " << golden.gap(position) << "\n";
}

Agreement teacher_force(ModelUnderTest& m, const std::vector<Golden>& goldens) {
  Agreement a;
  for (const Golden& golden : goldens) {
    const std::vector<TokenId> tokens = golden.tokens();
    m.run(tokens, 0, ModelUnderTest::blocks(0, 64), 512,
          [&](uint32_t position, std::span<const float> logits) {
            compare(golden, position, logits, &a);
          });
  }
  std::cout << "top-1 agrees at " << a.positions - a.misses << " of " << a.positions
            << " positions (" << 100 * a.rate() << " %), max |delta logit| " << a.largest_delta
            << ", widest missed gap " << a.widest_miss << "\n";
  return a;
}

class TinyGoldens : public testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder() const { return data_dir() / GetParam(); }
};

TEST_P(TinyGoldens, Float32LogitsAreThoseOfTransformers) {
  if (test_on_cuda()) GTEST_SKIP() << "GPUs compute in bf16";
  ModelUnderTest m(folder());
  const Agreement a = teacher_force(m, read_goldens(folder() / "goldens.json"));
  EXPECT_LT(a.widest_miss, 1e-3);
  EXPECT_LT(a.largest_delta, 2e-3);
}

// Random weights leave small gaps between logits, so a bf16 cache may well change the first; more
// so where activations are rounded to bf16, too: on a GPU, and by a CPU's AVX512_BF16.
TEST_P(TinyGoldens, Bfloat16AgreesMostly) {
  ModelUnderTest m(folder(), {.weights = DType::kBF16, .cache = DType::kBF16});
  const double rate = teacher_force(m, read_goldens(folder() / "goldens.json")).rate();
  const bool f32_activations = m.ops().numerics.starts_with("cpu-f32");
  EXPECT_GT(rate, f32_activations ? 0.95 : 0.93);
}

INSTANTIATE_TEST_SUITE_P(Families, TinyGoldens,
                         testing::Values("llama3", "llama_mha", "mistral", "qwen2", "qwen3"),
                         [](const auto& info) { return info.param; });

std::vector<Golden> quick_start_goldens() {
  return read_goldens(data_dir() / "smollm2_135m_instruct.json");
}

TEST(QuickStartGoldens, Float32LogitsAreThoseOfTransformers) {
  if (test_on_cuda()) GTEST_SKIP() << "GPUs compute in bf16";
  const auto path = fakes::quick_start_model();
  if (path.empty()) GTEST_SKIP();
  ModelUnderTest m(path);
  const std::vector<Golden> goldens = quick_start_goldens();
  ASSERT_GE(goldens.size(), 12u);
  const Agreement a = teacher_force(m, goldens);
  EXPECT_LT(a.widest_miss, 1e-3);
  EXPECT_LT(a.largest_delta, 2e-2);
}

TEST(QuickStartGoldens, Bfloat16AgreesAt98Percent) {
  const auto path = fakes::quick_start_model();
  if (path.empty()) GTEST_SKIP();
  ModelUnderTest m(path, {.weights = DType::kBF16, .cache = DType::kBF16});
  const Agreement a = teacher_force(m, quick_start_goldens());
  EXPECT_GE(a.rate(), 0.98);
  EXPECT_LT(a.widest_miss, 0.15);
}

}  // namespace
}  // namespace baton::model
