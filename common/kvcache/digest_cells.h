#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kvcache/layout.h"

namespace baton::kvcache {

// Tokens [first, first + num_tokens) of one layer of one block, to be digested, or copied and
// digested.
struct DigestCell {
  const std::byte* from = nullptr;  // the layer's first plane and head, at the first of the tokens
  std::byte* to = nullptr;          // likewise, in the block it is copied to
  uint32_t layer = 0;
  uint32_t position = 0;  // of the first of the tokens, in the sequence
  uint32_t num_tokens = 0;
};

// The digest (digest.h) of all `cells`: of what `from` points to, each byte read once. By the
// widest instructions of this CPU; the value is the same with any.
uint64_t digest_cells(const KvLayout& layout, std::span<const DigestCell> cells);

// Copies the cells from `from` to `to` as well, and digests what it wrote there, whatever happens
// to `from` meanwhile. Past the CPU's caches where it can: what arrives is more than they hold, and
// memory has less to do. Fastest for many cells at once: each is fetched during the one before.
uint64_t copy_digest_cells(const KvLayout& layout, std::span<const DigestCell> cells);

}  // namespace baton::kvcache
