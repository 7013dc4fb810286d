#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kvcache/layout.h"
#include "kvtransfer/plan.h"

namespace baton::kvtransfer {

// Digest (kvcache/digest.h) of `range` of a sequence that lies in `blocks` of `cache`. The range
// may begin or end anywhere. Ranges side by side add up.
uint64_t digest_range(const kvcache::KvLayout& layout, const std::byte* cache, BlockRun blocks,
                      const KvRange& range);

}  // namespace baton::kvtransfer
