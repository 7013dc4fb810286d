#include "common/formats/storage_type.h"

#include <array>

namespace baton::formats {
namespace {

struct TypeInfo {
  std::string_view name;
  size_t block_elements;
  size_t block_bytes;
};

constexpr size_t kLegacyBlock = 32;
constexpr size_t kSuperBlock = 256;
constexpr size_t kHalf = 2;  // bytes of an f16 scale

constexpr TypeInfo info(StorageType type) {
  switch (type) {
    case StorageType::kF32:
      return {"F32", 1, 4};
    case StorageType::kF16:
      return {"F16", 1, 2};
    case StorageType::kBF16:
      return {"BF16", 1, 2};
    case StorageType::kQ8_0:
      return {"Q8_0", kLegacyBlock, kHalf + 32};
    case StorageType::kQ4_0:
      return {"Q4_0", kLegacyBlock, kHalf + 16};
    case StorageType::kQ4_1:
      return {"Q4_1", kLegacyBlock, 2 * kHalf + 16};
    case StorageType::kQ5_0:
      return {"Q5_0", kLegacyBlock, kHalf + 4 + 16};
    case StorageType::kQ5_1:
      return {"Q5_1", kLegacyBlock, 2 * kHalf + 4 + 16};
    case StorageType::kQ4_K:
      return {"Q4_K", kSuperBlock, 2 * kHalf + 12 + 128};
    case StorageType::kQ5_K:
      return {"Q5_K", kSuperBlock, 2 * kHalf + 12 + 32 + 128};
    case StorageType::kQ6_K:
      return {"Q6_K", kSuperBlock, 128 + 64 + 16 + kHalf};
  }
  return {"?", 1, 1};
}

// Indexed by the number in the file; numbers that were withdrawn have no name.
constexpr std::array<std::string_view, 40> kGgmlNames = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "",       "",      "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",  "",
    "",        "",       "TQ1_0",   "TQ2_0", "",       "",      "",      "MXFP4"};

}  // namespace

size_t block_elements(StorageType type) { return info(type).block_elements; }
size_t block_bytes(StorageType type) { return info(type).block_bytes; }
std::string_view name(StorageType type) { return info(type).name; }

std::optional<StorageType> storage_type_from_ggml(uint32_t type) {
  switch (type) {
    case 0:
      return StorageType::kF32;
    case 1:
      return StorageType::kF16;
    case 2:
      return StorageType::kQ4_0;
    case 3:
      return StorageType::kQ4_1;
    case 6:
      return StorageType::kQ5_0;
    case 7:
      return StorageType::kQ5_1;
    case 8:
      return StorageType::kQ8_0;
    case 12:
      return StorageType::kQ4_K;
    case 13:
      return StorageType::kQ5_K;
    case 14:
      return StorageType::kQ6_K;
    case 30:
      return StorageType::kBF16;
    default:
      return std::nullopt;
  }
}

std::string_view ggml_type_name(uint32_t type) {
  return type < kGgmlNames.size() ? kGgmlNames[type] : std::string_view();
}

}  // namespace baton::formats
