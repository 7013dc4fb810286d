#include "kvtransfer/copy_digest.h"

#include <algorithm>
#include <vector>

#include "common/kvcache/digest_cells.h"

namespace baton::kvtransfer {

uint64_t copy_digest(const kvcache::KvLayout& l, const std::byte* source_cache, BlockRun source,
                     std::byte* sink_cache, BlockRun sink, const KvRange& range) {
  if (l.num_shards() > 1) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l.num_shards(); ++i) {
      const size_t offset = l.shard_offset(i);
      sum +=
          copy_digest(l.shard(i), source_cache + offset, source, sink_cache + offset, sink, range);
    }
    return sum;
  }
  std::vector<kvcache::DigestCell> cells;
  cells.reserve(size_t{range.layer_end - range.layer_begin} *
                (l.blocks_for(range.token_end - range.token_begin) + 1));
  for (uint32_t at = range.token_begin; at < range.token_end;) {
    const uint32_t token = (at - sink.first_token) % l.block_tokens;
    const BlockId from = source.blocks[(at - source.first_token) / l.block_tokens];
    const BlockId to = sink.blocks[(at - sink.first_token) / l.block_tokens];
    const uint32_t count = std::min(range.token_end - at, l.block_tokens - token);
    for (uint32_t layer = range.layer_begin; layer < range.layer_end; ++layer) {
      cells.push_back({source_cache + l.offset(from, layer, 0, 0, token),
                       sink_cache + l.offset(to, layer, 0, 0, token), layer, at, count});
    }
    at += count;
  }
  return kvcache::copy_digest_cells(l, cells);
}

}  // namespace baton::kvtransfer
