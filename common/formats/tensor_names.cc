#include "common/formats/tensor_names.h"

#include <fmt/format.h>

#include <array>

namespace baton::formats {
namespace {

struct RoleNames {
  TensorRole role;
  std::string_view label;
  bool per_layer;
  std::string_view gguf;          // after "blk.N." where per layer
  std::string_view hugging_face;  // after "model.layers.N." where per layer
};

// In the order of the enumeration.
constexpr std::array<RoleNames, 18> kRoles = {{
    {TensorRole::kEmbedding, "embedding", false, "token_embd.weight", "model.embed_tokens.weight"},
    {TensorRole::kFinalNorm, "final norm", false, "output_norm.weight", "model.norm.weight"},
    {TensorRole::kLmHead, "lm head", false, "output.weight", "lm_head.weight"},
    {TensorRole::kRopeFactors, "rope factors", false, "rope_freqs.weight", ""},
    {TensorRole::kAttnNorm, "attention norm", true, "attn_norm.weight", "input_layernorm.weight"},
    {TensorRole::kQ, "q", true, "attn_q.weight", "self_attn.q_proj.weight"},
    {TensorRole::kK, "k", true, "attn_k.weight", "self_attn.k_proj.weight"},
    {TensorRole::kV, "v", true, "attn_v.weight", "self_attn.v_proj.weight"},
    {TensorRole::kO, "o", true, "attn_output.weight", "self_attn.o_proj.weight"},
    {TensorRole::kQBias, "q bias", true, "attn_q.bias", "self_attn.q_proj.bias"},
    {TensorRole::kKBias, "k bias", true, "attn_k.bias", "self_attn.k_proj.bias"},
    {TensorRole::kVBias, "v bias", true, "attn_v.bias", "self_attn.v_proj.bias"},
    {TensorRole::kQNorm, "q norm", true, "attn_q_norm.weight", "self_attn.q_norm.weight"},
    {TensorRole::kKNorm, "k norm", true, "attn_k_norm.weight", "self_attn.k_norm.weight"},
    {TensorRole::kMlpNorm, "mlp norm", true, "ffn_norm.weight", "post_attention_layernorm.weight"},
    {TensorRole::kGate, "gate", true, "ffn_gate.weight", "mlp.gate_proj.weight"},
    {TensorRole::kUp, "up", true, "ffn_up.weight", "mlp.up_proj.weight"},
    {TensorRole::kDown, "down", true, "ffn_down.weight", "mlp.down_proj.weight"},
}};

constexpr auto kAllRoles = [] {
  std::array<TensorRole, kRoles.size()> roles{};
  for (size_t i = 0; i < roles.size(); ++i) roles[i] = kRoles[i].role;
  return roles;
}();

const RoleNames& entry(TensorRole role) { return kRoles[static_cast<size_t>(role)]; }

}  // namespace

std::span<const TensorRole> all_tensor_roles() { return kAllRoles; }
std::string_view name(TensorRole role) { return entry(role).label; }
bool is_per_layer(TensorRole role) { return entry(role).per_layer; }

std::string tensor_name(TensorSource source, TensorRole role, uint32_t layer) {
  const bool gguf = source == TensorSource::kGguf;
  const std::string_view base = gguf ? entry(role).gguf : entry(role).hugging_face;
  if (!is_per_layer(role)) return std::string(base);
  return fmt::format("{}{}.{}", gguf ? "blk." : "model.layers.", layer, base);
}

std::vector<uint64_t> tensor_shape(const ModelConfig& c, TensorRole role) {
  const uint64_t q = uint64_t{c.num_heads} * c.head_dim;
  const uint64_t kv = uint64_t{c.num_kv_heads} * c.head_dim;
  switch (role) {
    case TensorRole::kEmbedding:
    case TensorRole::kLmHead:
      return {c.vocab_size, c.hidden};
    case TensorRole::kFinalNorm:
    case TensorRole::kAttnNorm:
    case TensorRole::kMlpNorm:
      return {c.hidden};
    case TensorRole::kRopeFactors:
      return {c.head_dim / 2};
    case TensorRole::kQ:
      return {q, c.hidden};
    case TensorRole::kK:
    case TensorRole::kV:
      return {kv, c.hidden};
    case TensorRole::kO:
      return {c.hidden, q};
    case TensorRole::kQBias:
      return {q};
    case TensorRole::kKBias:
    case TensorRole::kVBias:
      return {kv};
    case TensorRole::kQNorm:
    case TensorRole::kKNorm:
      return {c.head_dim};
    case TensorRole::kGate:
    case TensorRole::kUp:
      return {c.intermediate, c.hidden};
    case TensorRole::kDown:
      return {c.hidden, c.intermediate};
  }
  return {};
}

bool is_required(const ModelConfig& c, TensorRole role) {
  switch (role) {
    case TensorRole::kLmHead:
      return !c.tie_embeddings;
    case TensorRole::kRopeFactors:
      return false;
    case TensorRole::kQBias:
    case TensorRole::kKBias:
    case TensorRole::kVBias:
      return c.attention_bias;
    case TensorRole::kQNorm:
    case TensorRole::kKNorm:
      return c.qk_norm;
    default:
      return true;
  }
}

}  // namespace baton::formats
