#include "kvtransfer/stream_digest.h"

#include <algorithm>

#include "kvtransfer/range_digest.h"

namespace baton::kvtransfer {
namespace {

// Which shard some layers at this place are of.
uint32_t shard_at(const kvcache::KvLayout& layout, uint64_t offset) {
  uint32_t shard = layout.num_shards() - 1;
  while (shard > 0 && offset % layout.block_bytes() < layout.shard_offset(shard)) --shard;
  return shard;
}

}  // namespace

void StreamDigest::advance(const kvcache::KvLayout& layout, const std::byte* cache,
                           const StartRead& read, uint64_t bytes) {
  const KvRange& range = read.range;
  const BlockRun run{read.blocks, read.first_token};
  const bool whole_blocks = range.layer_end - range.layer_begin == layout.num_layers();
  for (; segment_ < read.segments.size(); ++segment_, done_ = 0, entered_ = false) {
    const Segment& s = read.segments[segment_];
    const uint64_t each = whole_blocks ? layout.block_bytes() : s.bytes;
    const uint64_t blocks = s.total_bytes() / each;
    const bool sharded = !whole_blocks && layout.num_shards() > 1;
    const uint32_t shard = sharded ? shard_at(layout, s.sink_offset) : 0;
    if (!entered_ && shard == 0) {  // else of the same blocks as the segment before
      run_token_ = next_token_;
      next_token_ += static_cast<uint32_t>(blocks) * layout.block_tokens;
    }
    entered_ = true;
    const uint64_t here = std::min(blocks, (bytes - bytes_) / each);
    if (here > done_) {
      KvRange part = range;
      const uint32_t begin = range.token_begin + run_token_;
      part.token_begin = begin + static_cast<uint32_t>(done_) * layout.block_tokens;
      part.token_end =
          std::min(range.token_end, begin + static_cast<uint32_t>(here) * layout.block_tokens);
      sum_ += sharded
                  ? digest_range(layout.shard(shard), cache + layout.shard_offset(shard), run, part)
                  : digest_range(layout, cache, run, part);
      done_ = here;
    }
    if (done_ < blocks) return;
    bytes_ += s.total_bytes();
  }
}

}  // namespace baton::kvtransfer
