#include "router/openai/sampling.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxTokenId = std::numeric_limits<TokenId>::max();

std::string_view view(const json::string& text) { return {text.data(), text.size()}; }

api_result<std::string> parse_stop_string(const Fields& fields, const json::value& value,
                                          const RequestLimits& limits) {
  const json::string* text = value.if_string();
  if (!text) return fields.bad("stop", "must be a string or an array of strings");
  if (text->empty() || text->size() > limits.max_stop_bytes) {
    return fields.bad("stop", fmt::format("must have strings of 1 to {} bytes, not {}",
                                          limits.max_stop_bytes, text->size()));
  }
  return std::string(view(*text));
}

api_result<std::vector<std::string>> parse_stop(const Fields& fields, const RequestLimits& limits) {
  std::vector<std::string> stop;
  const json::value* value = fields.find("stop");
  if (!value) return stop;
  const json::array* array = value->if_array();
  if (!array) {
    BATON_TRY(std::string one, parse_stop_string(fields, *value, limits));
    stop.push_back(std::move(one));
    return stop;
  }
  if (array->size() > limits.max_stop_strings) {
    return fields.bad("stop", fmt::format("must have at most {} strings, not {}",
                                          limits.max_stop_strings, array->size()));
  }
  for (const json::value& item : *array) {
    BATON_TRY(std::string one, parse_stop_string(fields, item, limits));
    stop.push_back(std::move(one));
  }
  return stop;
}

api_result<std::vector<TokenId>> parse_stop_tokens(const Fields& fields,
                                                   const RequestLimits& limits) {
  std::vector<TokenId> ids;
  const json::value* value = fields.find("stop_token_ids");
  if (!value) return ids;
  const json::array* array = value->if_array();
  if (!array || array->size() > limits.max_stop_tokens) {
    return fields.bad("stop_token_ids", fmt::format("must be an array of at most {} token ids",
                                                    limits.max_stop_tokens));
  }
  for (const json::value& item : *array) {
    const std::optional<int64_t> id = json_to_int(item);
    if (!id || *id < 0 || *id > kMaxTokenId) {
      return fields.bad("stop_token_ids", "must be an array of token ids");
    }
    ids.push_back(static_cast<TokenId>(*id));
  }
  return ids;
}

api_result<std::vector<std::pair<TokenId, float>>> parse_logit_bias(const Fields& fields,
                                                                    const RequestLimits& limits) {
  std::vector<std::pair<TokenId, float>> biases;
  const json::value* value = fields.find("logit_bias");
  if (!value) return biases;
  const json::object* map = value->if_object();
  if (!map || map->size() > limits.max_logit_biases) {
    return fields.bad("logit_bias", fmt::format("must map at most {} token ids to numbers",
                                                limits.max_logit_biases));
  }
  for (const auto& member : *map) {
    const std::string_view key(member.key().data(), member.key().size());
    TokenId id = 0;
    const auto failed = std::from_chars(key.data(), key.data() + key.size(), id).ec;
    // As ids are written: "070" and "70" would be two keys of one token.
    if (failed != std::errc() || fmt::format_int(id).str() != key || id < 0) {
      return fields.bad("logit_bias", "must have token ids as keys");
    }
    const double bias = member.value().is_number() ? member.value().to_number<double>() : NAN;
    if (!(bias >= -100 && bias <= 100)) {
      return fields.bad("logit_bias", "must have values between -100 and 100");
    }
    biases.emplace_back(id, static_cast<float>(bias));
  }
  return biases;
}

api_result<float> parse_float(const Fields& fields, std::string_view name, double min, double max,
                              double fallback) {
  BATON_TRY(const double value, fields.number_or(name, min, max, fallback));
  return static_cast<float>(value);
}

// vLLM's -1 means all, like 0.
api_result<uint32_t> parse_top_k(const Fields& fields) {
  BATON_TRY(const int64_t top_k, fields.integer_or("top_k", -1, 1 << 20, 0));
  return static_cast<uint32_t>(top_k < 0 ? 0 : top_k);
}

api_result<std::optional<uint64_t>> parse_seed(const Fields& fields) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  BATON_TRY(const std::optional<int64_t> seed, fields.integer("seed", kMin, kMax));
  if (!seed) return std::nullopt;
  return std::optional<uint64_t>(*seed);
}

}  // namespace

api_result<SamplingFields> parse_sampling(const Fields& fields, const RequestLimits& limits) {
  // Above zero, and a float that is not rounded to it.
  constexpr double kAboveZero = 1e-6;
  SamplingFields out;
  BATON_TRY(out.temperature, parse_float(fields, "temperature", 0, 2, 1));
  BATON_TRY(out.top_p, parse_float(fields, "top_p", kAboveZero, 1, 1));
  BATON_TRY(out.min_p, parse_float(fields, "min_p", 0, 1, 0));
  BATON_TRY(out.repetition_penalty, parse_float(fields, "repetition_penalty", 0.01, 10, 1));
  BATON_TRY(out.presence_penalty, parse_float(fields, "presence_penalty", -2, 2, 0));
  BATON_TRY(out.frequency_penalty, parse_float(fields, "frequency_penalty", -2, 2, 0));
  BATON_TRY(out.top_k, parse_top_k(fields));
  BATON_TRY(out.seed, parse_seed(fields));
  BATON_TRY(const int64_t min_tokens,
            fields.integer_or("min_tokens", 0, std::numeric_limits<int32_t>::max(), 0));
  out.min_tokens = static_cast<uint32_t>(min_tokens);
  BATON_TRY(out.ignore_eos, fields.boolean_or("ignore_eos", false));
  BATON_TRY(out.skip_special_tokens, fields.boolean_or("skip_special_tokens", true));
  BATON_TRY(out.logit_bias, parse_logit_bias(fields, limits));
  BATON_TRY(out.stop, parse_stop(fields, limits));
  BATON_TRY(out.stop_token_ids, parse_stop_tokens(fields, limits));
  return out;
}

api_result<StreamFields> parse_stream(const Fields& fields) {
  StreamFields out;
  BATON_TRY(out.stream, fields.boolean_or("stream", false));
  const json::value* options = fields.find("stream_options");
  if (!options) return out;
  if (!options->is_object()) return fields.bad("stream_options", "must be an object");
  if (!out.stream) return fields.bad("stream_options", "is only allowed with 'stream': true");
  const Fields inner(options->get_object(), fields.path_of("stream_options."));
  BATON_TRY(out.include_usage, inner.boolean_or("include_usage", false));
  BATON_TRY(out.continuous_usage, inner.boolean_or("continuous_usage_stats", false));
  BATON_TRY([[maybe_unused]] const bool obfuscation,
            inner.boolean_or("include_obfuscation", false));
  out.continuous_usage = out.continuous_usage && out.include_usage;
  return out;
}

api_status check_token_ids(const SamplingFields& sampling, uint32_t vocab_size) {
  const auto outside = [&](TokenId id) { return static_cast<uint32_t>(id) >= vocab_size; };
  const auto reason = [&](TokenId id) {
    return fmt::format("has token id {}, but the vocabulary ends at {}", id, vocab_size - 1);
  };
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (outside(id)) return bad_field("logit_bias", reason(id));
  }
  for (const TokenId id : sampling.stop_token_ids) {
    if (outside(id)) return bad_field("stop_token_ids", reason(id));
  }
  return {};
}

}  // namespace baton::router
