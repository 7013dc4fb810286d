#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kvcache/layout.h"
#include "kvtransfer/plan.h"

namespace baton::kvtransfer {

// KV that knows whose it is: the bytes of a vector follow from (seed of the sequence, layer, plane,
// absolute head, position), whatever the layout it lies in.
void write_kv(const kvcache::KvLayout& layout, std::byte* cache, BlockRun blocks,
              const KvRange& range, uint64_t seed);
// How many vectors of the range are not what write_kv() writes.
size_t wrong_vectors(const kvcache::KvLayout& layout, const std::byte* cache, BlockRun blocks,
                     const KvRange& range, uint64_t seed);

}  // namespace baton::kvtransfer
