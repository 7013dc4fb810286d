#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kvcache/layout.h"
#include "kvtransfer/plan.h"

namespace baton::kvtransfer {

// Copies `range` of a sequence from one cache to another that lies alike (plan.h), and returns
// the digest (kvcache/digest.h) of what was written: in one pass, so that hashing hides behind the
// memory that copying waits for (kvcache/digest_cells.h). Others may change the source meanwhile:
// the digest is of the copy.
uint64_t copy_digest(const kvcache::KvLayout& layout, const std::byte* source_cache,
                     BlockRun source, std::byte* sink_cache, BlockRun sink, const KvRange& range);

}  // namespace baton::kvtransfer
