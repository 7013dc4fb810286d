#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <limits>

#include "common/formats/model_config.h"
#include "common/formats/utf8.h"

// Fields and defaults: the configuration classes of github.com/huggingface/transformers.

namespace baton::formats {
namespace {

namespace json = boost::json;

constexpr std::array<std::string_view, 4> kArchitectures = {"llama", "mistral", "qwen2", "qwen3"};

Error unsupported(const JsonFields& fields, std::string_view field, std::string_view reason) {
  Error e = fields.bad(field, reason);
  e.code = Errc::kUnsupported;
  return e;
}

// 1..max
result<uint32_t> size(const JsonFields& fields, std::string_view field, uint32_t max) {
  BATON_TRY(const uint64_t value, fields.uint(field));
  if (value >= 1 && value <= max) return static_cast<uint32_t>(value);
  return fields.bad(field, fmt::format("is {}, not 1 to {}", value, max));
}

result<float> number_or(const JsonFields& fields, std::string_view field, float otherwise) {
  if (!fields.has(field)) return otherwise;
  BATON_TRY(const double value, fields.number(field));
  return static_cast<float>(value);
}

result<bool> boolean_or(const JsonFields& fields, std::string_view field, bool otherwise) {
  if (!fields.has(field)) return otherwise;
  return fields.boolean(field);
}

result<std::string> architecture(const JsonFields& config) {
  BATON_TRY(const std::string_view type, config.string("model_type"));
  for (const std::string_view known : kArchitectures) {
    if (type == known) return std::string(type);
  }
  return unsupported(
      config, "model_type",
      fmt::format("is '{}', an architecture that is not supported", printable(type)));
}

status read_sizes(const JsonFields& config, ModelConfig* c) {
  BATON_TRY(c->num_layers, size(config, "num_hidden_layers", kMaxLayers));
  BATON_TRY(c->hidden, size(config, "hidden_size", kMaxWidth));
  BATON_TRY(c->intermediate, size(config, "intermediate_size", kMaxWidth));
  BATON_TRY(c->num_heads, size(config, "num_attention_heads", kMaxHeads));
  BATON_TRY(c->vocab_size, size(config, "vocab_size", kMaxVocab));
  BATON_TRY(c->max_position, size(config, "max_position_embeddings", kMaxPosition));
  c->num_kv_heads = c->num_heads;
  // Only llama defines what an absent field means by another field; elsewhere it is a number.
  if (config.has("num_key_value_heads") || c->architecture != "llama") {
    BATON_TRY(c->num_kv_heads, size(config, "num_key_value_heads", kMaxHeads));
  }
  return {};
}

status read_head_dim(const JsonFields& config, ModelConfig* c) {
  if (config.has("head_dim")) {
    BATON_TRY(c->head_dim, size(config, "head_dim", kMaxHeadDim));
    return {};
  }
  if (c->architecture == "qwen3") {
    c->head_dim = 128;
    return {};
  }
  c->head_dim = c->hidden / c->num_heads;
  if (c->hidden % c->num_heads == 0 && c->head_dim <= kMaxHeadDim) return {};
  return config.bad("num_attention_heads", fmt::format("is {}, which does not divide the width {}",
                                                       c->num_heads, c->hidden));
}

status read_llama3_scaling(const JsonFields& rope, ModelConfig* c) {
  c->rope_scaling = RopeScaling::kLlama3;
  BATON_TRY(const double factor, rope.number("factor"));
  BATON_TRY(const double low, rope.number("low_freq_factor"));
  BATON_TRY(const double high, rope.number("high_freq_factor"));
  BATON_TRY(c->rope_original_max_position,
            size(rope, "original_max_position_embeddings", kMaxPosition));
  c->rope_factor = static_cast<float>(factor);
  c->rope_low_freq_factor = static_cast<float>(low);
  c->rope_high_freq_factor = static_cast<float>(high);
  return {};
}

// `rope`: the object rope_scaling, or rope_parameters as newer files call it; both name the type
// "rope_type", older ones "type". The latter may hold rope_theta as well.
status read_scaling(const JsonFields& rope, ModelConfig* c) {
  BATON_TRY(c->rope_theta, number_or(rope, "rope_theta", c->rope_theta));
  const std::string_view field = rope.has("rope_type") ? "rope_type" : "type";
  if (!rope.has(field)) return {};
  BATON_TRY(const std::string_view type, rope.string(field));
  if (type == "default") return {};
  if (type == "llama3") return read_llama3_scaling(rope, c);
  if (type != "linear") {
    return unsupported(rope, field,
                       fmt::format("is '{}', which is not supported", printable(type)));
  }
  c->rope_scaling = RopeScaling::kLinear;
  BATON_TRY(const double factor, rope.number("factor"));
  c->rope_factor = static_cast<float>(factor);
  return {};
}

status read_rope(const JsonFields& config, ModelConfig* c) {
  BATON_TRY(c->rope_theta, number_or(config, "rope_theta", 10000));
  BATON_TRY(const float part, number_or(config, "partial_rotary_factor", 1));
  if (part != 1) {
    return unsupported(config, "partial_rotary_factor", "is not 1, which is not supported");
  }
  for (const std::string_view field : {"rope_parameters", "rope_scaling"}) {
    if (!config.has(field)) continue;
    BATON_TRY(const JsonFields rope, config.fields(field));
    return read_scaling(rope, c);
  }
  return {};
}

status refuse_window(const JsonFields& config, const ModelConfig& c) {
  if (config.has("layer_types")) {
    BATON_TRY(const json::array* types, config.array("layer_types"));
    for (const json::value& type : *types) {
      if (type.is_string() && type.get_string() == "full_attention") continue;
      return unsupported(config, "layer_types",
                         "names a layer that is not 'full_attention', which is not supported");
    }
    return {};
  }
  // Mistral has a window where one is given; the Qwens where use_sliding_window says so; Llama
  // none.
  if (c.architecture == "llama" || !config.has("sliding_window")) return {};
  BATON_TRY(const bool in_use,
            boolean_or(config, "use_sliding_window", c.architecture == "mistral"));
  BATON_TRY(const uint64_t window, config.uint("sliding_window"));
  if (!in_use || window >= c.max_position) return {};
  return unsupported(config, "sliding_window",
                     fmt::format("is {}: a sliding window is not supported", window));
}

// What would change the computation if it were ignored.
status refuse_extensions(const JsonFields& config, const ModelConfig& c) {
  if (config.has("quantization_config")) {
    return unsupported(config, "quantization_config",
                       "is set: quantized checkpoints are not supported");
  }
  if (config.has("hidden_act")) {
    BATON_TRY(const std::string_view activation, config.string("hidden_act"));
    if (activation != "silu") {
      return unsupported(config, "hidden_act",
                         fmt::format("is '{}', not 'silu'", printable(activation)));
    }
  }
  for (const std::string_view field : {"attention_bias", "mlp_bias"}) {
    BATON_TRY(const bool set, boolean_or(config, field, false));
    // Qwen2 has no such field: its biases are always on q, k and v alone.
    if (!set || c.architecture == "qwen2") continue;
    return unsupported(config, field, "is true: biases on every projection are not supported");
  }
  return refuse_window(config, c);
}

status append_ids(const JsonFields& fields, std::string_view field, std::vector<TokenId>* ids) {
  const json::value* value = fields.find(field);
  if (!value) return {};
  const auto append = [&](const json::value& id) {
    uint64_t number = 0;
    if (!json_to_uint(id, &number)) return false;
    if (number > static_cast<uint64_t>(std::numeric_limits<TokenId>::max())) return false;
    ids->push_back(static_cast<TokenId>(number));
    return true;
  };
  const json::array* list = value->if_array();
  if (!list && append(*value)) return {};
  if (list && std::all_of(list->begin(), list->end(), append)) return {};
  return fields.bad(field, "must be a token id or a list of them");
}

status read_tokens(const JsonFields& config, const std::optional<JsonFields>& generation,
                   const std::optional<JsonFields>& tokenizer, ModelConfig* c) {
  BATON_CHECK_OK(append_ids(config, "eos_token_id", &c->eos_ids));
  if (generation) BATON_CHECK_OK(append_ids(*generation, "eos_token_id", &c->eos_ids));
  std::vector<TokenId> bos;
  BATON_CHECK_OK(append_ids(config, "bos_token_id", &bos));
  if (!bos.empty()) c->bos_id = bos.front();
  if (!tokenizer) return {};
  BATON_TRY(c->add_bos, boolean_or(*tokenizer, "add_bos_token", false));
  c->add_bos = c->add_bos && c->bos_id;
  return {};
}

}  // namespace

result<ModelConfig> model_config_from_hf(const JsonFields& config,
                                         const std::optional<JsonFields>& generation,
                                         const std::optional<JsonFields>& tokenizer) {
  ModelConfig c;
  BATON_TRY(c.architecture, architecture(config));
  BATON_CHECK_OK(read_sizes(config, &c));
  BATON_CHECK_OK(read_head_dim(config, &c));
  BATON_TRY(c.rms_norm_eps, number_or(config, "rms_norm_eps", 1e-6f));
  BATON_CHECK_OK(read_rope(config, &c));
  BATON_CHECK_OK(refuse_extensions(config, c));
  BATON_CHECK_OK(read_tokens(config, generation, tokenizer, &c));
  BATON_TRY(c.tie_embeddings, boolean_or(config, "tie_word_embeddings", false));
  c.attention_bias = c.architecture == "qwen2";
  c.qk_norm = c.architecture == "qwen3";
  BATON_CHECK_OK(check_model_config(config.source(), &c));
  return c;
}

}  // namespace baton::formats
