#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kvcache/layout.h"
#include "kvtransfer/plan.h"
#include "kvtransfer/sink.h"

namespace baton::kvtransfer {

// The digest of a read between caches that lie alike, taken bit by bit as its bytes arrive: its
// segments' pieces, one after the other.
class StreamDigest {
 public:
  // The first `bytes` of the read lie in `cache` by now, the reader's; more than it has means all.
  // The same read each time, and no fewer bytes than before.
  void advance(const kvcache::KvLayout& layout, const std::byte* cache, const StartRead& read,
               uint64_t bytes);
  // Of all whole blocks, or shards of them, that have come.
  uint64_t sum() const { return sum_; }

 private:
  // A segment holds as much of each of some neighbouring blocks: all of them, some layers, or
  // some layers of a shard.
  uint64_t bytes_ = 0;  // before the segment
  size_t segment_ = 0;
  uint64_t done_ = 0;        // blocks of the segment
  uint32_t run_token_ = 0;   // where the blocks of the segment begin, behind the range's begin
  uint32_t next_token_ = 0;  // where those of the next run do
  bool entered_ = false;     // run_token_ is the segment's
  uint64_t sum_ = 0;
};

}  // namespace baton::kvtransfer
