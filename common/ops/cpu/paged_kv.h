#pragma once

#include "common/ops/ops.h"

namespace baton::ops {

inline constexpr uint32_t kKeyPlane = 0;
inline constexpr uint32_t kValuePlane = 1;

// Where a head's vector of one token lies; head_dim elements, contiguous.
inline std::byte* kv_vector(const PagedKv& kv, const SequenceRows& seq, uint32_t plane,
                            uint32_t head, uint32_t position) {
  const BlockId block = seq.block_table[position / kv.block_tokens];
  return kv.base + block.value * kv.block_stride + plane * kv.plane_stride + head * kv.head_stride +
         (position % kv.block_tokens) * kv.token_stride;
}

}  // namespace baton::ops
