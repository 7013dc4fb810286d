#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace baton {

// Element types of tensors that are computed with. Packed file formats (Q4_1, ...) live in
// formats/.
enum class DType : uint8_t { kF32, kBF16, kF16, kI32 };

constexpr size_t size_bytes(DType t) {
  switch (t) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
  }
  return 0;
}

constexpr std::string_view name(DType t) {
  switch (t) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI32:
      return "i32";
  }
  return "?";
}

// bf16 is the upper half of an f32; rounding is to nearest even, NaN stays NaN.
inline uint16_t f32_to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline float bf16_to_f32(uint16_t h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
// IEEE half, rounded to nearest even; beyond its largest number, 65504, that number with the sign,
// of infinity, too. NaN stays NaN.
inline uint16_t f32_to_f16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  const auto sign = static_cast<uint16_t>(u >> 16 & 0x8000u);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return sign | 0x7e00u;
  if (u >= 0x477ff000u) return sign | 0x7bffu;  // 65520 would be rounded beyond
  if (u >= 0x38800000u) {                       // a normal number, from 2^-14 on
    u += 0xfffu + (u >> 13 & 1u);
    return static_cast<uint16_t>(sign | (u - 0x38000000u) >> 13);
  }
  // A subnormal: its 10 bits are the lowest of a sum with 2^-1, whose last place is 2^-24.
  std::memcpy(&f, &u, 4);
  f += 0.5f;
  std::memcpy(&u, &f, 4);
  return static_cast<uint16_t>(sign | (u - 0x3f000000u));
}
// IEEE half to float, exactly, subnormals included.
inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  uint32_t exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu, u;
  if (exponent == 0x1fu) {
    u = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    u = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    u = sign;
  } else {
    exponent = 113;
    while (!(mantissa & 0x400u)) {
      mantissa <<= 1;
      --exponent;
    }
    u = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

}  // namespace baton
