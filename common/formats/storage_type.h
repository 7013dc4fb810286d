#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace baton::formats {

// How a file stores a tensor's elements. All little-endian. The packed types hold a fixed number of
// neighbouring elements of one row in a block with its scales.
enum class StorageType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

size_t block_elements(StorageType type);  // 1 for the plain types
size_t block_bytes(StorageType type);
std::string_view name(StorageType type);  // "Q4_1", as GGUF writes it

// A GGUF tensor type number; nothing for one that is not read here.
std::optional<StorageType> storage_type_from_ggml(uint32_t type);
// The name of any GGUF tensor type, read here or not; empty for a number that none has.
std::string_view ggml_type_name(uint32_t type);

// `dst` gets dst.size() f32, a whole number of blocks that lie in `src` (exactly that many bytes,
// any alignment). Bit-exact to the format's definition: in every type the product of scale and
// quant has at most 24 significant bits, so that only the last addition rounds and neither its
// order nor a fused multiply-add can show. Sizes that do not match are the caller's bug.
void dequantize(StorageType type, std::span<const std::byte> src, std::span<float> dst);

}  // namespace baton::formats
