#include "kvtransfer/range_digest.h"

#include <algorithm>

#include "common/kvcache/digest.h"

namespace baton::kvtransfer {

uint64_t digest_range(const kvcache::KvLayout& layout, const std::byte* cache, BlockRun blocks,
                      const KvRange& range) {
  uint64_t sum = 0;
  if (layout.num_shards() > 1) {
    for (uint32_t i = 0; i < layout.num_shards(); ++i) {
      sum += digest_range(layout.shard(i), cache + layout.shard_offset(i), blocks, range);
    }
    return sum;
  }
  for (uint32_t at = range.token_begin; at < range.token_end;) {
    const uint32_t i = (at - blocks.first_token) / layout.block_tokens;
    const uint32_t block_begin = blocks.first_token + i * layout.block_tokens;
    const uint32_t end = std::min(range.token_end, block_begin + layout.block_tokens);
    // Heads keep their stride, so a block seen from a later token on is a block too.
    const std::byte* from = cache + layout.offset(blocks.blocks[i], 0, 0, 0, at - block_begin);
    for (uint32_t layer = range.layer_begin; layer < range.layer_end; ++layer) {
      sum += kvcache::digest_layer(layout, from, layer, at, end - at);
    }
    at = end;
  }
  return sum;
}

}  // namespace baton::kvtransfer
