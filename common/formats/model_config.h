#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/formats/gguf.h"
#include "common/formats/hf_json.h"

namespace baton::formats {

enum class RopeScaling : uint8_t {
  kNone,
  kLlama3,  // by wavelength: rope_factor, the two frequency factors, the original length
  kLinear,  // every frequency divided by rope_factor
};

// A decoder of the Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU. Every value has
// been checked; the ranges and relations are those of check_model_config.
struct ModelConfig {
  std::string architecture;  // "llama", "mistral", "qwen2" or "qwen3"

  // Sizes, in elements.
  uint32_t num_layers = 0;
  uint32_t hidden = 0;
  uint32_t intermediate = 0;
  uint32_t num_heads = 0;
  uint32_t num_kv_heads = 0;  // divides num_heads
  uint32_t head_dim = 0;      // even
  uint32_t vocab_size = 0;
  uint32_t max_position = 0;  // tokens of the longest sequence

  float rms_norm_eps = 0;

  // RoPE. A GGUF file gives llama3's scaling as a tensor instead (TensorRole::kRopeFactors): then
  // rope_scaling is kNone and frequency i is divided by element i.
  float rope_theta = 0;
  RopeScaling rope_scaling = RopeScaling::kNone;
  float rope_factor = 1;
  float rope_low_freq_factor = 1;
  float rope_high_freq_factor = 1;
  uint32_t rope_original_max_position = 0;
  // How rows of q and k are stored: true where RoPE pairs neighbouring rows of a head, (2i, 2i+1),
  // as GGUF has them for llama; false for halves, (i, i + head_dim/2).
  bool rope_interleaved = false;

  bool tie_embeddings = false;  // no lm_head: the embedding serves
  bool attention_bias = false;  // biases on q, k and v; never on o
  bool qk_norm = false;         // RMSNorm over head_dim of each q and k head, before RoPE

  // Token ids, each under vocab_size.
  std::vector<TokenId> eos_ids;  // ascending, each once; may be empty
  std::optional<TokenId> bos_id;
  // The file asks for bos before every prompt. From a Hugging Face directory only what
  // tokenizer_config.json says: a tokenizer.json post-processor is the tokenizer's to read.
  bool add_bos = false;
};

// From GGUF metadata: general.architecture llama, qwen2 or qwen3. Whether embeddings are tied is
// not in the metadata: the file has no output.weight then.
result<ModelConfig> model_config_from_gguf(const GgufFile& file);

// From the objects of config.json (model_type llama, mistral, qwen2, qwen3) and, where the files
// exist, generation_config.json (more eos ids) and tokenizer_config.json (add_bos_token).
result<ModelConfig> model_config_from_hf(const JsonFields& config,
                                         const std::optional<JsonFields>& generation,
                                         const std::optional<JsonFields>& tokenizer);

// The relations between the fields and the ids' range; `source` names the file in the sentence.
// Also puts eos_ids in order. kDataCorrupt.
status check_model_config(std::string_view source, ModelConfig* config);

// The largest sizes that are believed, so that no product of them overflows.
inline constexpr uint32_t kMaxLayers = 1024;
inline constexpr uint32_t kMaxHeads = 4096;
inline constexpr uint32_t kMaxHeadDim = 4096;
inline constexpr uint32_t kMaxWidth = 1 << 20;  // hidden, intermediate
inline constexpr uint32_t kMaxVocab = 1 << 24;
inline constexpr uint32_t kMaxPosition = 1 << 26;

}  // namespace baton::formats
