#include "common/formats/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace baton::formats {
namespace {

Error bad(std::string_view source, std::string_view reason) {
  return error(Errc::kDataCorrupt, fmt::format("{}: {}", source, reason));
}

status check_shape(std::string_view source, const ModelConfig& c) {
  if (c.num_heads % c.num_kv_heads != 0) {
    return bad(source, fmt::format("{} attention heads are not a multiple of {} key-value heads",
                                   c.num_heads, c.num_kv_heads));
  }
  if (c.head_dim % 2 != 0) {
    return bad(source,
               fmt::format("the head size {} is odd, which RoPE cannot rotate", c.head_dim));
  }
  return {};
}

status check_numbers(std::string_view source, const ModelConfig& c) {
  const auto positive = [](float f) { return std::isfinite(f) && f > 0; };
  if (!positive(c.rms_norm_eps) || c.rms_norm_eps >= 1) {
    return bad(source,
               fmt::format("the RMSNorm epsilon {} is not between 0 and 1", c.rms_norm_eps));
  }
  if (!positive(c.rope_theta) || c.rope_theta < 1) {
    return bad(source, fmt::format("the RoPE base {} is not a number of at least 1", c.rope_theta));
  }
  if (!positive(c.rope_factor)) {
    return bad(source, fmt::format("the RoPE scaling factor {} is not over 0", c.rope_factor));
  }
  if (c.rope_scaling != RopeScaling::kLlama3) return {};
  if (!positive(c.rope_low_freq_factor) || !positive(c.rope_high_freq_factor) ||
      c.rope_low_freq_factor >= c.rope_high_freq_factor) {
    return bad(source, fmt::format("the RoPE frequency factors {} and {} are not in order",
                                   c.rope_low_freq_factor, c.rope_high_freq_factor));
  }
  return {};
}

status check_id(std::string_view source, std::string_view what, TokenId id, uint32_t vocab_size) {
  if (id >= 0 && static_cast<uint32_t>(id) < vocab_size) return {};
  return bad(source, fmt::format("the {} token id {} is not in the vocabulary of {}", what, id,
                                 vocab_size));
}

}  // namespace

status check_model_config(std::string_view source, ModelConfig* config) {
  BATON_CHECK_OK(check_shape(source, *config));
  BATON_CHECK_OK(check_numbers(source, *config));
  for (const TokenId id : config->eos_ids) {
    BATON_CHECK_OK(check_id(source, "eos", id, config->vocab_size));
  }
  if (config->bos_id) {
    BATON_CHECK_OK(check_id(source, "bos", *config->bos_id, config->vocab_size));
  }
  if (config->add_bos && !config->bos_id) {
    return bad(source, "asks for a bos token before every prompt but names none");
  }
  std::vector<TokenId>& ids = config->eos_ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return {};
}

}  // namespace baton::formats
