// The right tokens, through the engine: greedy decoding of all prompts together, in float32,
// against the tokens of transformers.
#include <gtest/gtest.h>

#include <iostream>
#include <vector>

#include "tests/engine/driver.h"
#include "tests/fakes/quick_start_model.h"
#include "tests/model/goldens.h"

namespace baton::engine {
namespace {

// A difference counts where the golden's two best logits are further apart than rounding.
constexpr float kTie = 1e-3f;

void expect_golden(const model::Golden& golden, const Job& job) {
  for (size_t i = 0; i < golden.output.size(); ++i) {
    const TokenId token = job.drawn[i].token;
    if (token == golden.output[i]) continue;
    const float gap = golden.gap(golden.prompt.size() + i - 1);
    std::cout << golden.name << ", output " << i << ": " << token << " instead of "
              << golden.output[i] << ", golden gap " << gap << "\n";
    EXPECT_LT(gap, kTie) << golden.name;
    return;  // what follows is another text
  }
}

void check_all(const std::filesystem::path& path, const std::filesystem::path& goldens_path) {
  if (model::test_on_cuda()) GTEST_SKIP() << "GPUs compute in bf16";
  Driver driver(path, {.model = {.num_blocks = 512, .max_rows = 256}});
  const std::vector<model::Golden> goldens = model::read_goldens(goldens_path);
  std::vector<Job> jobs;
  for (const model::Golden& g : goldens) {
    jobs.push_back({.prompt = g.prompt, .max_tokens = static_cast<uint32_t>(g.output.size())});
  }
  driver.run(jobs, 128);
  for (size_t i = 0; i < jobs.size(); ++i) expect_golden(goldens[i], jobs[i]);
}

class TinyGreedy : public testing::TestWithParam<std::string> {};

TEST_P(TinyGreedy, TokensAreThoseOfTransformers) {
  const auto folder = model::data_dir() / GetParam();
  check_all(folder, folder / "goldens.json");
}

INSTANTIATE_TEST_SUITE_P(Families, TinyGreedy,
                         testing::Values("llama3", "llama_mha", "mistral", "qwen2", "qwen3"),
                         [](const auto& info) { return info.param; });

TEST(QuickStartGreedy, TokensAreThoseOfTransformers) {
  const auto path = fakes::quick_start_model();
  if (path.empty()) GTEST_SKIP();
  check_all(path, model::data_dir() / "smollm2_135m_instruct.json");
}

}  // namespace
}  // namespace baton::engine
