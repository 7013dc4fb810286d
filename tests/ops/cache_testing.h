#pragma once

#include <algorithm>
#include <numeric>

#include "tests/ops/ops_testing.h"

namespace baton::ops {

struct CacheShape {
  uint32_t heads, kv_heads, head_dim, block_tokens;
  DType dtype;
};

// A paged cache of one layer for some sequences whose blocks lie in random order. What was never
// written is NaN.
class Cache {
 public:
  Cache(Random& random, const CacheShape& shape, const std::vector<uint32_t>& lengths)
      : shape_(shape) {
    uint32_t blocks = 0;
    for (const uint32_t n : lengths) {
      const uint32_t count = (n + shape.block_tokens - 1) / shape.block_tokens;
      tables_.emplace_back(count);
      for (BlockId& id : tables_.back()) id = BlockId(blocks++);
    }
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (auto& table : tables_) {
      for (BlockId& id : table) id = BlockId(order[id.value]);
    }
    const size_t token = shape.head_dim * size_bytes(shape.dtype);
    kv_ = {.dtype = shape.dtype,
           .block_tokens = shape.block_tokens,
           .num_kv_heads = shape.kv_heads,
           .head_dim = shape.head_dim,
           .block_stride = 2 * shape.kv_heads * shape.block_tokens * token,
           .plane_stride = shape.kv_heads * shape.block_tokens * token,
           .head_stride = shape.block_tokens * token,
           .token_stride = token};
    memory_.resize(blocks * kv_.block_stride, std::byte{0xff});
    kv_.base = memory_.data();
  }

  const PagedKv& kv() const { return kv_; }
  const BlockId* table(size_t sequence) const { return tables_[sequence].data(); }

  void set(size_t seq, uint32_t plane, uint32_t head, uint32_t t, uint32_t d, float value) {
    std::byte* at = address(seq, plane, head, t) + d * size_bytes(shape_.dtype);
    if (shape_.dtype == DType::kF32) {
      std::memcpy(at, &value, 4);
    } else {
      const uint16_t half = f32_to_half(value);
      std::memcpy(at, &half, 2);
    }
  }
  float get(size_t seq, uint32_t plane, uint32_t head, uint32_t t, uint32_t d) const {
    const std::byte* at = address(seq, plane, head, t) + d * size_bytes(shape_.dtype);
    if (shape_.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, at, 4);
      return value;
    }
    uint16_t half;
    std::memcpy(&half, at, 2);
    return half_to_f32(half);
  }
  void fill(Random& random, size_t seq, uint32_t tokens) {
    std::normal_distribution<float> normal;
    for (uint32_t plane = 0; plane < 2; ++plane) {
      for (uint32_t h = 0; h < shape_.kv_heads; ++h) {
        for (uint32_t t = 0; t < tokens; ++t) {
          for (uint32_t d = 0; d < shape_.head_dim; ++d) set(seq, plane, h, t, d, normal(random));
        }
      }
    }
  }

 private:
  std::byte* address(size_t seq, uint32_t plane, uint32_t head, uint32_t t) const {
    const BlockId block = tables_[seq][t / shape_.block_tokens];
    return kv_.base + block.value * kv_.block_stride + plane * kv_.plane_stride +
           head * kv_.head_stride + (t % shape_.block_tokens) * kv_.token_stride;
  }

  CacheShape shape_;
  PagedKv kv_;
  std::vector<std::byte> memory_;
  std::vector<std::vector<BlockId>> tables_;
};

}  // namespace baton::ops
