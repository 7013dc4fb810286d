#include "tests/fakes/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "common/base/dtype.h"
#include "tests/fakes/gguf_writer.h"

namespace baton::fakes {
namespace {

using formats::StorageType;

float largest(std::span<const float> block) {
  float most = 0;
  for (const float v : block) most = std::max(most, std::fabs(v));
  return most;
}

int rounded(float value, int low, int high) {
  return std::clamp(static_cast<int>(std::lround(value)), low, high);
}

// The inverse of a scale as it will be read; 0 for a block of zeros.
float inverse(uint16_t scale) {
  const float d = f16_to_f32(scale);
  return d == 0 ? 0 : 1 / d;
}

std::string nibbles(std::span<const int> q) {
  std::string out;
  for (int i = 0; i < 16; ++i) out.push_back(static_cast<char>(q[i] | q[i + 16] << 4));
  return out;
}

std::string q8_0(std::span<const float> block) {
  const uint16_t d = f32_to_f16(largest(block) / 127);
  std::string out = little_endian(d);
  for (const float v : block) {
    out.push_back(static_cast<char>(static_cast<int8_t>(rounded(v * inverse(d), -127, 127))));
  }
  return out;
}

std::string q4_0(std::span<const float> block) {
  const uint16_t d = f32_to_f16(largest(block) / 7);
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = 8 + rounded(block[i] * inverse(d), -8, 7);
  return little_endian(d) + nibbles(q);
}

std::string q4_1(std::span<const float> block) {
  const auto [low, high] = std::minmax_element(block.begin(), block.end());
  const uint16_t m = f32_to_f16(*low), d = f32_to_f16((*high - *low) / 15);
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = rounded((block[i] - f16_to_f32(m)) * inverse(d), 0, 15);
  return little_endian(d) + little_endian(m) + nibbles(q);
}

template <class F>
std::string each_block(std::span<const float> values, size_t elements, F encode_block) {
  std::string out;
  for (size_t i = 0; i < values.size(); i += elements) {
    out += encode_block(values.subspan(i, elements));
  }
  return out;
}

}  // namespace

uint16_t f32_to_f16(float value) {
  uint32_t u;
  std::memcpy(&u, &value, sizeof(u));
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00;
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  // The spacing of halves around the value; 2^-24 below the smallest normal one, 2^-14.
  int exponent = -14;
  if (magnitude >= 0x1p-14f) exponent = std::ilogb(magnitude);
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  // A step count of 2048 carries into the exponent, as it should.
  return static_cast<uint16_t>(sign | (static_cast<uint32_t>(exponent + 14) * 1024 + steps));
}

std::string encode(StorageType type, std::span<const float> values) {
  switch (type) {
    case StorageType::kF32:
      return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
    case StorageType::kF16:
      return each_block(values, 1, [](auto v) { return little_endian(f32_to_f16(v[0])); });
    case StorageType::kBF16:
      return each_block(values, 1, [](auto v) { return little_endian(f32_to_bf16(v[0])); });
    case StorageType::kQ8_0:
      return each_block(values, 32, q8_0);
    case StorageType::kQ4_0:
      return each_block(values, 32, q4_0);
    case StorageType::kQ4_1:
      return each_block(values, 32, q4_1);
    default:
      throw std::invalid_argument("no encoder");
  }
}

}  // namespace baton::fakes
