#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "common/formats/model_config.h"
#include "common/formats/tensor_names.h"
#include "common/formats/utf8.h"

// Keys: github.com/ggml-org/ggml/blob/master/docs/gguf.md; "llama.block_count" for a llama.

namespace baton::formats {
namespace {

// Mistral's files say llama.
constexpr std::array<std::string_view, 3> kArchitectures = {"llama", "qwen2", "qwen3"};

class Reader {
 public:
  Reader(const GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), prefix_(std::move(architecture) + ".") {}

  const GgufMetadata& metadata() const { return metadata_; }
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  bool has(std::string_view name) const { return metadata_.has(key(name)); }
  Error unsupported(std::string_view name, std::string_view reason) const {
    Error e = metadata_.bad(key(name), reason);
    e.code = Errc::kUnsupported;
    return e;
  }

  // 1..max
  result<uint32_t> size(std::string_view name, uint32_t max) const {
    BATON_TRY(const uint64_t value, metadata_.uint(key(name)));
    if (value >= 1 && value <= max) return static_cast<uint32_t>(value);
    return metadata_.bad(key(name), fmt::format("is {}, not 1 to {}", value, max));
  }
  result<uint32_t> size_or(std::string_view name, uint32_t max, uint32_t otherwise) const {
    if (!has(name)) return otherwise;
    return size(name, max);
  }
  result<uint64_t> uint_or_0(std::string_view name) const {
    if (!has(name)) return uint64_t{0};
    return metadata_.uint(key(name));
  }
  result<float> number_or(std::string_view name, float otherwise) const {
    if (!has(name)) return otherwise;
    BATON_TRY(const double value, metadata_.number(key(name)));
    return static_cast<float>(value);
  }

 private:
  const GgufMetadata& metadata_;
  std::string prefix_;
};

// One of several files of a model holds only a part of the tensors.
status refuse_split(const GgufMetadata& metadata) {
  constexpr std::string_view kKey = "split.count";
  if (!metadata.has(kKey)) return {};
  BATON_TRY(const uint64_t files, metadata.uint(kKey));
  if (files <= 1) return {};
  Error e = metadata.bad(kKey, fmt::format("is {}: split models are not supported", files));
  e.code = Errc::kUnsupported;
  return e;
}

result<std::string> architecture(const GgufMetadata& metadata) {
  constexpr std::string_view kKey = "general.architecture";
  BATON_TRY(const std::string_view name, metadata.string(kKey));
  if (std::ranges::find(kArchitectures, name) != kArchitectures.end()) return std::string(name);
  Error e = metadata.bad(
      kKey, fmt::format("is '{}', an architecture that is not supported", printable(name)));
  e.code = Errc::kUnsupported;
  return e;
}

status read_sizes(const Reader& reader, ModelConfig* c) {
  BATON_TRY(c->num_layers, reader.size("block_count", kMaxLayers));
  BATON_TRY(c->hidden, reader.size("embedding_length", kMaxWidth));
  BATON_TRY(c->intermediate, reader.size("feed_forward_length", kMaxWidth));
  BATON_TRY(c->num_heads, reader.size("attention.head_count", kMaxHeads));
  BATON_TRY(c->num_kv_heads, reader.size_or("attention.head_count_kv", kMaxHeads, c->num_heads));
  BATON_TRY(c->max_position, reader.size("context_length", kMaxPosition));
  return {};
}

status read_head_dim(const Reader& reader, ModelConfig* c) {
  if (reader.has("attention.key_length")) {
    BATON_TRY(c->head_dim, reader.size("attention.key_length", kMaxHeadDim));
  } else if (c->hidden % c->num_heads == 0 && c->hidden / c->num_heads <= kMaxHeadDim) {
    c->head_dim = c->hidden / c->num_heads;
  } else {
    return reader.metadata().bad(
        reader.key("attention.head_count"),
        fmt::format("is {}, which does not divide the width {}", c->num_heads, c->hidden));
  }
  for (const std::string_view name : {"attention.value_length", "rope.dimension_count"}) {
    BATON_TRY(const uint32_t dim, reader.size_or(name, kMaxHeadDim, c->head_dim));
    if (dim == c->head_dim) continue;
    return reader.unsupported(
        name,
        fmt::format("is {}, which is not supported beside a head size of {}", dim, c->head_dim));
  }
  return {};
}

status read_vocab_size(const Reader& reader, ModelConfig* c) {
  if (reader.has("vocab_size")) {
    BATON_TRY(c->vocab_size, reader.size("vocab_size", kMaxVocab));
    return {};
  }
  constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
  const GgufValue* value = reader.metadata().find(kTokens);
  const auto* tokens = value ? std::get_if<GgufArray>(value) : nullptr;
  if (!tokens || tokens->count == 0 || tokens->count > kMaxVocab) {
    return reader.metadata().bad(kTokens, "must tell the size of the vocabulary");
  }
  c->vocab_size = static_cast<uint32_t>(tokens->count);
  return {};
}

status read_rope(const Reader& reader, ModelConfig* c) {
  BATON_TRY(c->rope_theta, reader.number_or("rope.freq_base", 10000));
  BATON_TRY(c->rope_factor, reader.number_or("rope.scale_linear", 1));  // before it had a type
  if (c->rope_factor != 1) c->rope_scaling = RopeScaling::kLinear;
  if (!reader.has("rope.scaling.type")) return {};
  BATON_TRY(const std::string_view type, reader.metadata().string(reader.key("rope.scaling.type")));
  if (type == "none") return {};
  if (type != "linear") {
    return reader.unsupported("rope.scaling.type",
                              fmt::format("is '{}', which is not supported", printable(type)));
  }
  c->rope_scaling = RopeScaling::kLinear;
  BATON_TRY(c->rope_factor, reader.number_or("rope.scaling.factor", 1));
  return {};
}

// What would change the computation if it were ignored.
status refuse_extensions(const Reader& reader, const ModelConfig& c) {
  BATON_TRY(const uint64_t experts, reader.uint_or_0("expert_count"));
  if (experts > 0) {
    return reader.unsupported("expert_count",
                              fmt::format("is {}: experts are not supported", experts));
  }
  BATON_TRY(const uint64_t window, reader.uint_or_0("attention.sliding_window"));
  if (window == 0 || window >= c.max_position) return {};
  return reader.unsupported("attention.sliding_window",
                            fmt::format("is {}: a sliding window is not supported", window));
}

result<std::optional<TokenId>> token_id(const GgufMetadata& metadata, std::string_view key) {
  if (!metadata.has(key)) return std::optional<TokenId>();
  BATON_TRY(const uint64_t id, metadata.uint(key));
  if (id > static_cast<uint64_t>(std::numeric_limits<TokenId>::max())) {
    return metadata.bad(key, fmt::format("is {}, which is no token id", id));
  }
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

// Without the key, llama.cpp's rule: the vocabularies of Llama 2 and 3 begin with bos.
result<bool> add_bos(const GgufMetadata& metadata) {
  constexpr std::string_view kKey = "tokenizer.ggml.add_bos_token";
  if (metadata.has(kKey)) return metadata.boolean(kKey);
  const auto is = [&](std::string_view key, std::string_view expected) {
    const auto text = metadata.string(key);
    return text && *text == expected;
  };
  return is("tokenizer.ggml.model", "llama") || is("tokenizer.ggml.pre", "llama-bpe");
}

status read_tokens(const GgufMetadata& metadata, ModelConfig* c) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    BATON_TRY(const std::optional<TokenId> id, token_id(metadata, key));
    if (id) c->eos_ids.push_back(*id);
  }
  BATON_TRY(c->bos_id, token_id(metadata, "tokenizer.ggml.bos_token_id"));
  BATON_TRY(c->add_bos, add_bos(metadata));
  c->add_bos = c->add_bos && c->bos_id;
  return {};
}

}  // namespace

result<ModelConfig> model_config_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  BATON_CHECK_OK(refuse_split(metadata));
  ModelConfig c;
  BATON_TRY(c.architecture, architecture(metadata));
  const Reader reader(metadata, c.architecture);
  BATON_CHECK_OK(read_sizes(reader, &c));
  BATON_CHECK_OK(read_head_dim(reader, &c));
  BATON_CHECK_OK(read_vocab_size(reader, &c));
  BATON_TRY(const double eps, metadata.number(reader.key("attention.layer_norm_rms_epsilon")));
  c.rms_norm_eps = static_cast<float>(eps);
  BATON_CHECK_OK(read_rope(reader, &c));
  BATON_CHECK_OK(refuse_extensions(reader, c));
  BATON_CHECK_OK(read_tokens(metadata, &c));
  c.rope_interleaved = c.architecture == "llama";
  c.attention_bias = c.architecture == "qwen2";
  c.qk_norm = c.architecture == "qwen3";
  const std::string head = tensor_name(TensorSource::kGguf, TensorRole::kLmHead);
  c.tie_embeddings = file.tensors().find(head) == nullptr;
  BATON_CHECK_OK(check_model_config(file.tensors().maps().front().path(), &c));
  return c;
}

}  // namespace baton::formats
