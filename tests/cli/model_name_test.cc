#include "cli/model_name.h"

#include <gtest/gtest.h>

namespace baton::cli {
namespace {

TEST(ModelName, IsTheFilesWithoutQuantization) {
  EXPECT_EQ(model_name_of("/a/SmolLM2-135M-Instruct.Q4_1.gguf"), "SmolLM2-135M-Instruct");
  EXPECT_EQ(model_name_of("Llama-3.2-1B-Q4_K_M.gguf"), "Llama-3.2-1B");
  EXPECT_EQ(model_name_of("m.BF16.gguf"), "m");
  EXPECT_EQ(model_name_of("m-f16.gguf"), "m");
  EXPECT_EQ(model_name_of("plain.gguf"), "plain");
}

TEST(ModelName, IsTheDirectorys) {
  EXPECT_EQ(model_name_of("/models/Qwen3-0.6B"), "Qwen3-0.6B");
  EXPECT_EQ(model_name_of("/models/Qwen3-0.6B/"), "Qwen3-0.6B");
  EXPECT_EQ(model_name_of("tiny"), "tiny");
}

}  // namespace
}  // namespace baton::cli
