#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/dtype.h"
#include "common/formats/storage_type.h"
#include "tests/fakes/encode.h"
#include "tests/fakes/gguf_writer.h"

namespace baton::formats {
namespace {

constexpr StorageType kAllTypes[] = {StorageType::kF32,  StorageType::kF16,  StorageType::kBF16,
                                     StorageType::kQ8_0, StorageType::kQ4_0, StorageType::kQ4_1,
                                     StorageType::kQ5_0, StorageType::kQ5_1, StorageType::kQ4_K,
                                     StorageType::kQ5_K, StorageType::kQ6_K};

std::string unhex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

std::vector<float> read(StorageType type, std::string_view bytes) {
  std::vector<float> out(bytes.size() / block_bytes(type) * block_elements(type));
  dequantize(type, std::as_bytes(std::span(bytes)), out);
  return out;
}

std::string bits(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

TEST(StorageType, HasTheSizesOfTheFormat) {
  // Bytes of 256 elements: the sum of the fields of ggml's block structures.
  const size_t expected[] = {1024, 512, 512, 272, 144, 160, 176, 192, 144, 176, 210};
  size_t i = 0;
  for (const StorageType type : kAllTypes) {
    EXPECT_EQ(256 / block_elements(type) * block_bytes(type), expected[i++]) << name(type);
  }
}

TEST(StorageType, IsKnownByGgmlsNumber) {
  for (const StorageType type : kAllTypes) {
    EXPECT_EQ(ggml_type_name(fakes::ggml_type(type)), name(type));
  }
  EXPECT_FALSE(storage_type_from_ggml(11));
  EXPECT_EQ(ggml_type_name(11), "Q3_K");
  EXPECT_EQ(ggml_type_name(23), "IQ4_XS");
  EXPECT_EQ(ggml_type_name(4), "");
  EXPECT_EQ(ggml_type_name(4'000'000'000u), "");
}

TEST(Dequantize, EqualsTheReferenceInEveryBit) {
  std::ifstream file(BATON_SOURCE_DIR "/tests/formats/data/dequantize.txt");
  size_t lines = 0;
  for (std::string type_name, source, values; file >> type_name >> source >> values; ++lines) {
    for (const StorageType type : kAllTypes) {
      if (name(type) != type_name) continue;
      EXPECT_EQ(bits(read(type, unhex(source))), unhex(values)) << type_name;
    }
  }
  EXPECT_EQ(lines, std::size(kAllTypes) - 1);  // all but F32
}

// The definition, one element at a time and in double, for blocks of any bytes.
class Block {
 public:
  explicit Block(std::string_view bytes) : bytes_(bytes) {}
  int byte(int i) const { return static_cast<uint8_t>(bytes_[i]); }
  int sbyte(int i) const { return static_cast<int8_t>(bytes_[i]); }
  double half(int i) const { return f16_to_f32(static_cast<uint16_t>(byte(i) | byte(i + 1) << 8)); }
  int bit(int byte_at, int i) const { return byte(byte_at + i / 8) >> (i % 8) & 1; }

 private:
  std::string_view bytes_;
};

int nibble32(const Block& b, int at, int i) {  // element i of 32
  return i < 16 ? b.byte(at + i) & 15 : b.byte(at + i - 16) >> 4;
}

struct KScale {
  int scale, min;
};
KScale k_scale(const Block& b, int at, int j) {
  if (j < 4) return {b.byte(at + j) & 63, b.byte(at + 4 + j) & 63};
  const int low = b.byte(at + 8 + j - 4);
  return {(low & 15) + 16 * (b.byte(at + j - 4) >> 6), (low >> 4) + 16 * (b.byte(at + j) >> 6)};
}

double k_element(const Block& b, int i, bool five) {
  const int group = i / 32, quants = five ? 48 : 16;
  const int q = b.byte(quants + i / 64 * 32 + i % 32);
  int value = group % 2 ? q >> 4 : q & 15;
  if (five) value += 16 * ((b.byte(16 + i % 32) >> group) & 1);
  const KScale s = k_scale(b, 4, group);
  return b.half(0) * s.scale * value - b.half(2) * s.min;
}

double q6_element(const Block& b, int i) {
  const int half = i / 128, within = i % 128, lane = within % 32;
  const int low = b.byte(half * 64 + within % 64);
  const int nibble = within < 64 ? low & 15 : low >> 4;
  const int high = b.byte(128 + half * 32 + lane) >> (within / 32 * 2) & 3;
  return b.half(208) * b.sbyte(192 + i / 16) * (nibble + 16 * high - 32);
}

double element(StorageType type, const Block& b, int i) {
  switch (type) {
    case StorageType::kF16:
      return b.half(0);
    case StorageType::kQ8_0:
      return b.half(0) * b.sbyte(2 + i);
    case StorageType::kQ4_0:
      return b.half(0) * (nibble32(b, 2, i) - 8);
    case StorageType::kQ4_1:
      return b.half(0) * nibble32(b, 4, i) + b.half(2);
    case StorageType::kQ5_0:
      return b.half(0) * (nibble32(b, 6, i) + 16 * b.bit(2, i) - 16);
    case StorageType::kQ5_1:
      return b.half(0) * (nibble32(b, 8, i) + 16 * b.bit(4, i)) + b.half(2);
    case StorageType::kQ4_K:
      return k_element(b, i, false);
    case StorageType::kQ5_K:
      return k_element(b, i, true);
    case StorageType::kQ6_K:
      return q6_element(b, i);
    default:
      return 0;
  }
}

TEST(Dequantize, EqualsTheDefinitionOnAnyBytes) {
  uint32_t state = 1;
  for (const StorageType type : kAllTypes) {
    if (type == StorageType::kF32 || type == StorageType::kBF16) continue;
    for (int round = 0; round < 200; ++round) {
      std::string bytes(block_bytes(type), '\0');
      for (char& c : bytes) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
      const std::vector<float> values = read(type, bytes);
      const Block block(bytes);
      for (size_t i = 0; i < values.size(); ++i) {
        const auto expected = static_cast<float>(element(type, block, static_cast<int>(i)));
        if (std::isnan(expected) && std::isnan(values[i])) continue;
        ASSERT_EQ(expected, values[i]) << name(type) << " element " << i;
      }
    }
  }
}

TEST(Dequantize, ReadsFromAnyAddress) {
  const std::vector<float> values = {1.5f, -2, 3, 1e30f};
  for (const StorageType type : {StorageType::kF32, StorageType::kBF16}) {
    const std::string bytes = "x" + fakes::encode(type, values);
    EXPECT_EQ(read(type, std::string_view(bytes).substr(1)),
              read(type, fakes::encode(type, values)));
  }
}

TEST(Dequantize, HalvesSurviveTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float value = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(value)) continue;
    ASSERT_EQ(fakes::f32_to_f16(value), h);
  }
  EXPECT_EQ(fakes::f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(fakes::f32_to_f16(65520.0f), 0x7c00);
}

}  // namespace
}  // namespace baton::formats
