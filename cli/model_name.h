#pragma once

#include <string>

namespace baton::cli {

// The name that requests use for the model at `path`: the file's or directory's own, without
// ".gguf" and without the quantization that follows it (SmolLM2-135M-Instruct.Q4_1.gguf becomes
// SmolLM2-135M-Instruct).
std::string model_name_of(const std::string& path);

}  // namespace baton::cli
