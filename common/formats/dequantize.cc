#include <cstring>

#include "common/base/dtype.h"
#include "common/formats/storage_type.h"

// Formulas: the reference dequantizers of github.com/ggml-org/ggml (ggml-quants.c).

namespace baton::formats {
namespace {

float f16_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, sizeof(h));
  return f16_to_f32(h);
}

void q8_0(const uint8_t* block, float* dst) {  // f16 d, i8 q[32]: d * q
  const float d = f16_at(block);
  for (int i = 0; i < 32; ++i) dst[i] = d * static_cast<int8_t>(block[2 + i]);
}

// The low nibbles are elements 0..15, the high ones 16..31.
void q4_0(const uint8_t* block, float* dst) {  // f16 d, u4 q[32]: d * (q - 8)
  const float d = f16_at(block);
  for (int i = 0; i < 16; ++i) {
    const int q = block[2 + i];
    dst[i] = d * ((q & 15) - 8);
    dst[i + 16] = d * ((q >> 4) - 8);
  }
}

void q4_1(const uint8_t* block, float* dst) {  // f16 d, f16 m, u4 q[32]: d * q + m
  const float d = f16_at(block), m = f16_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int q = block[4 + i];
    dst[i] = d * (q & 15) + m;
    dst[i + 16] = d * (q >> 4) + m;
  }
}

// `high`: bit i is the fifth bit of element i.
int five_bits(const uint8_t* nibbles, uint32_t high, int element) {
  const int q = nibbles[element % 16];
  const int low = element < 16 ? q & 15 : q >> 4;
  return low | static_cast<int>((high >> element) & 1u) << 4;
}

void q5_0(const uint8_t* block, float* dst) {  // f16 d, u32 high, u4 q[32]: d * (q - 16)
  const float d = f16_at(block);
  uint32_t high;
  std::memcpy(&high, block + 2, sizeof(high));
  for (int i = 0; i < 32; ++i) dst[i] = d * (five_bits(block + 6, high, i) - 16);
}

void q5_1(const uint8_t* block, float* dst) {  // f16 d, f16 m, u32 high, u4 q[32]: d * q + m
  const float d = f16_at(block), m = f16_at(block + 2);
  uint32_t high;
  std::memcpy(&high, block + 4, sizeof(high));
  for (int i = 0; i < 32; ++i) dst[i] = d * five_bits(block + 8, high, i) + m;
}

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima, one pair for 32 elements, in 12
// bytes: the first four pairs in the low 6 bits of bytes 0..3 and 4..7; of the others, the low
// four bits in bytes 8..11 and the high two in the top of bytes 0..7.
struct ScaleMin {
  int scale, min;
};
ScaleMin scale_min(const uint8_t* packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  return {(packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4,
          (packed[group + 4] >> 4) | (packed[group] >> 6) << 4};
}

// `high`: 32 bytes whose bit `group` is the fifth bit of that group's elements; none for Q4_K.
void q45_k(const uint8_t* block, const uint8_t* high, const uint8_t* quants, float* dst) {
  const float d = f16_at(block), dmin = f16_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = scale_min(block + 4, group);
    const float scale = d * s.scale, min = dmin * s.min;
    const uint8_t* q = quants + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      int value = (q[i] >> shift) & 15;
      if (high) value |= ((high[i] >> group) & 1) << 4;
      dst[group * 32 + i] = scale * value - min;
    }
  }
}

void q4_k(const uint8_t* block, float* dst) {  // f16 d, f16 dmin, scales[12], u4 q[256]
  q45_k(block, nullptr, block + 16, dst);
}

void q5_k(const uint8_t* block, float* dst) {  // ... scales[12], high[32], u4 q[256]
  q45_k(block, block + 16, block + 48, dst);
}

// u4 low[256], u2 high[256], i8 scales[16], f16 d: d * scale * (q - 32). Per half of 128 elements:
// 64 bytes of low (quarters 0 and 1 in the low nibbles, 2 and 3 in the high), 32 of high (quarter
// k in bits 2k), 8 scales of 16 elements each.
void q6_k(const uint8_t* block, float* dst) {
  const float d = f16_at(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + 128 + half * 32;
    const uint8_t* scales = block + 192 + half * 8;
    for (int i = 0; i < 128; ++i) {
      const int quarter = i / 32, lane = i % 32;
      const int nibble = (low[quarter % 2 * 32 + lane] >> (quarter / 2 * 4)) & 15;
      const int q = (nibble | ((high[lane] >> (2 * quarter)) & 3) << 4) - 32;
      dst[half * 128 + i] = d * static_cast<int8_t>(scales[i / 16]) * q;
    }
  }
}

template <auto kBlock>
void blocks(StorageType type, const uint8_t* src, std::span<float> dst) {
  const size_t elements = block_elements(type), bytes = block_bytes(type);
  for (size_t i = 0; i < dst.size() / elements; ++i) {
    kBlock(src + i * bytes, dst.data() + i * elements);
  }
}

}  // namespace

void dequantize(StorageType type, std::span<const std::byte> src, std::span<float> dst) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(src.data());
  switch (type) {
    case StorageType::kF32:
      if (!dst.empty()) std::memcpy(dst.data(), bytes, dst.size_bytes());
      return;
    case StorageType::kF16:
      for (size_t i = 0; i < dst.size(); ++i) dst[i] = f16_at(bytes + 2 * i);
      return;
    case StorageType::kBF16:
      for (size_t i = 0; i < dst.size(); ++i) {
        uint16_t h;
        std::memcpy(&h, bytes + 2 * i, sizeof(h));
        dst[i] = bf16_to_f32(h);
      }
      return;
    case StorageType::kQ8_0:
      return blocks<q8_0>(type, bytes, dst);
    case StorageType::kQ4_0:
      return blocks<q4_0>(type, bytes, dst);
    case StorageType::kQ4_1:
      return blocks<q4_1>(type, bytes, dst);
    case StorageType::kQ5_0:
      return blocks<q5_0>(type, bytes, dst);
    case StorageType::kQ5_1:
      return blocks<q5_1>(type, bytes, dst);
    case StorageType::kQ4_K:
      return blocks<q4_k>(type, bytes, dst);
    case StorageType::kQ5_K:
      return blocks<q5_k>(type, bytes, dst);
    case StorageType::kQ6_K:
      return blocks<q6_k>(type, bytes, dst);
  }
}

}  // namespace baton::formats
