#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/formats/model_config.h"

namespace baton::model {

// The angle a position turns each pair of a head by [head_dim / 2]: theta^(-2i/head_dim), scaled as
// the configuration says (Llama 3.1's rule goes by wavelength, "linear" divides them all).
// `factors` [head_dim / 2] divide them, too; empty: none. In f32 step by step, as the reference has
// it. kDataCorrupt for a factor that is not a positive number.
result<std::vector<float>> rope_frequencies(const formats::ModelConfig& config,
                                            std::span<const float> factors);

// Equal texts rotate K alike; the text is compared, never read.
std::string rope_text(std::span<const float> frequencies);

}  // namespace baton::model
