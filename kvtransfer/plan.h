#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/kvcache/layout.h"

namespace baton::kvtransfer {

// `count` copies of `bytes` each, in bytes from the start of each side's cache. One piece is one
// run, with strides of zero; between pieces each side steps by its stride, which is at least
// `bytes`.
struct Segment {
  uint64_t source_offset = 0;
  uint64_t sink_offset = 0;
  uint64_t bytes = 0;
  uint64_t count = 1;
  uint64_t source_stride = 0, sink_stride = 0;

  uint64_t total_bytes() const { return count * bytes; }
  friend bool operator==(const Segment&, const Segment&) = default;
};

// Blocks of one side that hold a sequence from `first_token` (a multiple of its block_tokens) on.
struct BlockRun {
  std::span<const BlockId> blocks;
  uint32_t first_token = 0;
};

// A rectangle of the KV of one sequence.
struct KvRange {
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t token_begin = 0, token_end = 0;  // positions in the sequence
  friend bool operator==(const KvRange&, const KvRange&) = default;
};

// Whether a block is the same bytes on both sides, of layouts that may be planned between.
bool lie_alike(const kvcache::KvLayout& a, const kvcache::KvLayout& b);

// Appends to `segments` the copies that bring `range` from the source's blocks into the sink's:
// every vector of a head that both hold, once, each at its place. Neighbours are merged: where
// blocks that follow each other in the sequence do so on both sides, or stand apart by equal steps
// upwards, all layers of them are one run and some layers of them one strided segment. The
// layouts agree in layers, planes, vector_bytes and total_heads (compat.h); block_tokens, head
// ranges and shards may differ: then the heads are re-sliced. Where the range ends within a block,
// the rest of the smaller block is copied too: one run instead of one a head, and nobody reads
// beyond the sequence's end.
void plan_transfer(const kvcache::KvLayout& source, BlockRun source_blocks,
                   const kvcache::KvLayout& sink, BlockRun sink_blocks, const KvRange& range,
                   std::vector<Segment>& segments);

}  // namespace baton::kvtransfer
