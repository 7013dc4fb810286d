#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/formats/model_config.h"

namespace baton::formats {

// What a tensor is for, whatever its file calls it.
enum class TensorRole : uint8_t {
  kEmbedding,    // [vocab, hidden]
  kFinalNorm,    // [hidden]
  kLmHead,       // [vocab, hidden]; the embedding where they are tied
  kRopeFactors,  // [head_dim / 2]; GGUF only, optional
  // One a layer:
  kAttnNorm,  // [hidden]
  kQ,         // [heads * head_dim, hidden]
  kK,         // [kv_heads * head_dim, hidden]
  kV,         // [kv_heads * head_dim, hidden]
  kO,         // [hidden, heads * head_dim]
  kQBias,     // [heads * head_dim]
  kKBias,     // [kv_heads * head_dim]
  kVBias,     // [kv_heads * head_dim]
  kQNorm,     // [head_dim]
  kKNorm,     // [head_dim]
  kMlpNorm,   // [hidden]
  kGate,      // [intermediate, hidden]
  kUp,        // [intermediate, hidden]
  kDown,      // [hidden, intermediate]
};

std::span<const TensorRole> all_tensor_roles();
std::string_view name(TensorRole role);

// Whether each layer has its own.
bool is_per_layer(TensorRole role);

enum class TensorSource : uint8_t { kGguf, kHuggingFace };

// "blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight". `layer` is ignored for a role
// that is not per layer. Empty where that source never has such a tensor.
std::string tensor_name(TensorSource source, TensorRole role, uint32_t layer = 0);

// Outermost first.
std::vector<uint64_t> tensor_shape(const ModelConfig& config, TensorRole role);

// Whether a file of that model must have the tensor (kRopeFactors never: optional).
bool is_required(const ModelConfig& config, TensorRole role);

}  // namespace baton::formats
