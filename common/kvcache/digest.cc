#include "common/kvcache/digest.h"

#include <xxhash.h>

#include "common/kvcache/digest_cells.h"

namespace baton::kvcache {

uint64_t digest_layer(const KvLayout& layout, const std::byte* block, uint32_t layer,
                      uint32_t position, uint32_t num_tokens) {
  if (layout.num_shards() > 1) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < layout.num_shards(); ++i) {
      sum += digest_layer(layout.shard(i), block + layout.shard_offset(i), layer, position,
                          num_tokens);
    }
    return sum;
  }
  const DigestCell cell{block + layout.offset(BlockId{0}, layer), nullptr, layer, position,
                        num_tokens};
  return digest_cells(layout, {&cell, 1});
}

uint64_t hash_tokens(std::span<const TokenId> tokens) {
  return XXH3_64bits(tokens.data(), tokens.size_bytes());
}

}  // namespace baton::kvcache
