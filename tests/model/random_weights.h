#pragma once

#include <cstdint>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/formats/model_config.h"
#include "common/model/weights.h"
#include "common/ops/ops.h"

namespace baton::model {

// Weights in bf16, or in f16 for operations that compute in it, for a model of any size, without a
// file: normally distributed, so that activations stay in range, drawn from a pattern of a million
// values at offsets that differ from matrix to matrix. For benchmarks, and for tests where the
// values do not matter.
result<Weights> random_weights(const formats::ModelConfig& config, device::Device& device,
                               const ops::Ops& ops, uint32_t seed);

// The shape of Llama-3-8B, of the given layers (32 in the original).
formats::ModelConfig llama3_8b_shape(uint32_t layers = 32);

}  // namespace baton::model
