#include "common/kvcache/digest.h"

#define XXH_INLINE_ALL  // a call for each vector would cost as much as the hash
#include <xxhash.h>

#include <algorithm>

#include "common/kvcache/digest_place.h"

namespace baton::kvcache {
namespace {

uint64_t digest_vector(const std::byte* vector, size_t bytes, uint64_t seed) {
  uint64_t sum = 0;
  for (size_t offset = 0; offset < bytes; offset += kDigestPartBytes) {
    sum += XXH3_64bits_withSeed(vector + offset, std::min(kDigestPartBytes, bytes - offset),
                                seed + offset);
  }
  return sum;
}

}  // namespace

uint64_t digest_layer(const KvLayout& layout, const std::byte* block, uint32_t layer,
                      uint32_t position, uint32_t num_tokens) {
  const size_t vector_bytes = layout.vector_bytes();
  uint64_t sum = 0;
  for (uint32_t plane = 0; plane < layout.num_planes(); ++plane) {
    for (uint32_t head = 0; head < layout.num_heads(); ++head) {
      const std::byte* vector = block + layout.offset(BlockId{0}, layer, plane, head);
      for (uint32_t token = 0; token < num_tokens; ++token, vector += vector_bytes) {
        const uint64_t seed = place_seed(layer, plane, layout.head_begin + head, position + token);
        sum += digest_vector(vector, vector_bytes, seed);
      }
    }
  }
  return sum;
}

uint64_t hash_tokens(std::span<const TokenId> tokens) {
  return XXH3_64bits(tokens.data(), tokens.size_bytes());
}

}  // namespace baton::kvcache
