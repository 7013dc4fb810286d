#pragma once

#include <cstddef>
#include <cstdint>

#include "common/ops/cpu/paged_kv.h"
#include "common/ops/ops.h"

// What the kernels of attention are given, whatever arithmetic they use.
namespace baton::ops {

inline constexpr uint32_t kMaxHeadDim = 512;
inline constexpr uint32_t kMinBlockTokens = 16;
inline constexpr int kMaxQueries = 8;

// One KV head's part of one tile.
struct KvTile {
  const PagedKv& kv;
  const SequenceRows& seq;
  uint32_t head;
  uint32_t first;   // position of its first token
  uint32_t tokens;  // of it that may be read

  // K or V of a token of the tile: head_dim elements.
  const std::byte* vector(uint32_t plane, uint32_t token) const {
    return kv_vector(kv, seq, plane, head, first + token);
  }
  // K or V of 16 of its tokens, from `from` on, to be brought into cache: a block's share of one
  // head, too short a run for the hardware to see it coming. Null if there are none.
  const std::byte* run(uint32_t plane, uint32_t from) const {
    return from < tokens ? vector(plane, from) : nullptr;
  }
};

// Queries in order of their rows: each sees at least as many of the tile's tokens as the one before
// it.
struct QueryGroup {
  int count = 0;
  const float* q[kMaxQueries];  // [head_dim]
  uint32_t seen[kMaxQueries];   // tokens of the tile, at least 1
  float* records[kMaxQueries];  // [head_dim + 2], written
};

}  // namespace baton::ops
