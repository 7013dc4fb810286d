#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/formats/model_config.h"
#include "common/formats/storage_type.h"
#include "common/formats/tensor_names.h"
#include "tests/fakes/gguf_writer.h"

namespace baton::fakes {

// A model of a few hundred kilobytes with weights drawn from a seed: same seed, same model, in
// either form. Rows of q and k are in halves, as Hugging Face has them.
struct TinyModel {
  struct Tensor {
    formats::TensorRole role;
    uint32_t layer = 0;
    std::vector<uint64_t> shape;
    std::vector<float> values;
  };

  formats::ModelConfig config;
  std::vector<Tensor> tensors;
};

// 2 layers, width 64, 4 heads over 2 key-value heads of 16, 320 tokens, 512 positions.
// `architecture`: llama, mistral, qwen2 or qwen3.
formats::ModelConfig tiny_config(std::string_view architecture);

TinyModel make_tiny_model(const formats::ModelConfig& config, uint64_t seed);

// As the converter of llama.cpp would write it: matrices in `type`, vectors in F32, a llama's q and
// k rows interleaved, llama3 scaling as rope_freqs.weight; with the tokenizer of toy_tokenizer.h.
// mistral becomes llama.
GgufWriter gguf_model(const TinyModel& model, formats::StorageType type);
void write_gguf_model(const std::filesystem::path& path, const TinyModel& model,
                      formats::StorageType type = formats::StorageType::kF32);

// config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the weights, F32,
// F16 or BF16, in `shards` files. The directory is made if it is not there.
void write_hf_model(const std::filesystem::path& directory, const TinyModel& model,
                    formats::StorageType type = formats::StorageType::kF32, int shards = 1);

std::string hf_config_json(const formats::ModelConfig& config);

}  // namespace baton::fakes
