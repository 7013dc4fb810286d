#include "common/model/rope.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "common/kvcache/sha256.h"

namespace baton::model {
namespace {

using formats::ModelConfig;
using formats::RopeScaling;

// Long waves are stretched by the factor, short ones kept, those between blended.
float scale_llama3(const ModelConfig& c, float frequency) {
  const auto original = static_cast<float>(c.rope_original_max_position);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength > original / c.rope_low_freq_factor) return frequency / c.rope_factor;
  if (wavelength < original / c.rope_high_freq_factor) return frequency;
  const float smooth = (original / wavelength - c.rope_low_freq_factor) /
                       (c.rope_high_freq_factor - c.rope_low_freq_factor);
  return (1 - smooth) * frequency / c.rope_factor + smooth * frequency;
}

float scale(const ModelConfig& c, float frequency) {
  switch (c.rope_scaling) {
    case RopeScaling::kNone:
      return frequency;
    case RopeScaling::kLinear:
      return frequency / c.rope_factor;
    case RopeScaling::kLlama3:
      return scale_llama3(c, frequency);
  }
  return frequency;
}

}  // namespace

result<std::vector<float>> rope_frequencies(const ModelConfig& config,
                                            std::span<const float> factors) {
  std::vector<float> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    frequencies[i] = scale(config, 1.0f / std::pow(config.rope_theta, exponent));
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0) {
      return error(Errc::kDataCorrupt,
                   fmt::format("RoPE factor {} is {}; it must be positive", i, factors[i]));
    }
    frequencies[i] /= factors[i];
  }
  return frequencies;
}

std::string rope_text(std::span<const float> frequencies) {
  kvcache::Sha256 sha;
  sha.update(std::as_bytes(frequencies));
  return "halves:" + kvcache::to_hex(sha.finish());
}

}  // namespace baton::model
