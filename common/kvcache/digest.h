#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kvcache/layout.h"

namespace baton::kvcache {

// Digest of KV vectors: the sum mod 2^64, over (layer, plane, head, position), of
// XXH3-64(vector bytes; seed mixed from layer, plane, absolute head and position in the sequence);
// a vector of more than 128 bytes counts as parts of 128, each with seed + its offset in bytes.
// A sum, so any split of the same vectors (blocks, head ranges, layers) adds up to the same value;
// seeded by place, so a vector in the wrong place changes it. digest_cells.h computes it.

// Digest of tokens [0, num_tokens) of one layer of one block. `block`: start of the block in host
// memory. `position`: the sequence position of the block's token 0. Reads each byte once.
uint64_t digest_layer(const KvLayout& layout, const std::byte* block, uint32_t layer,
                      uint32_t position, uint32_t num_tokens);

// XXH3-64 over token ids; ties a hand-off to the exact prompt.
uint64_t hash_tokens(std::span<const TokenId> tokens);

}  // namespace baton::kvcache
