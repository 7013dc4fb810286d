#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/formats/storage_type.h"

namespace baton::fakes {

// Round to nearest even; overflow gives infinity.
uint16_t f32_to_f16(float value);

// The values as a file stores them, quantized in a plain way: F32, F16, BF16, Q8_0, Q4_0 and Q4_1.
// `values` must be whole blocks. What dequantize gives back is the value that a model sees.
std::string encode(formats::StorageType type, std::span<const float> values);

}  // namespace baton::fakes
