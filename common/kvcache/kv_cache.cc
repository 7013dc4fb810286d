#include "common/kvcache/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::kvcache {

uint32_t blocks_that_fit(const KvLayout& layout, size_t bytes) {
  return static_cast<uint32_t>(std::min<size_t>(bytes / layout.block_bytes(), UINT32_MAX - 1));
}

result<KvCache> KvCache::create(std::span<std::byte> memory, const KvLayout& layout,
                                uint32_t num_blocks) {
  BATON_CHECK_OK(layout.validate());
  if (num_blocks > blocks_that_fit(layout, memory.size())) {
    return error(Errc::kInvalidArgument,
                 fmt::format("KV cache: {} bytes do not hold {} blocks of {} bytes", memory.size(),
                             num_blocks, layout.block_bytes()));
  }
  return KvCache(memory.first(num_blocks * layout.block_bytes()), layout, num_blocks);
}

}  // namespace baton::kvcache
