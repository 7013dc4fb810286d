#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/base/result.h"

namespace baton::kvcache {

// What a group of layers keeps for each sequence.
enum class GroupKind : uint8_t { kFull, kWindow, kState };

// One kind of vector that is kept for each token and head. Plane 0 is K, plane 1 is V.
struct KvPlane {
  std::string name;
  uint32_t heads = 0;
  uint32_t vector_bytes = 0;  // bytes a token and head
  friend bool operator==(const KvPlane&, const KvPlane&) = default;
};

struct KvGroup {
  uint32_t layer_begin = 0, layer_end = 0;
  std::vector<KvPlane> planes;
  GroupKind kind = GroupKind::kFull;
  bool sharded = false;  // heads are split over ranks (else each rank holds all)
  friend bool operator==(const KvGroup&, const KvGroup&) = default;
};

// How a worker's KV cache lies in memory: a pure value, block-major,
//   [block][shard][layer][plane][head][token][vector]
// so that a block is one contiguous run, a shard's layer of a block is one, and so is a range of
// heads within it. A shard is what one rank of a tensor-parallel worker writes; without ranks there
// is one. Version 1 holds exactly one full group with K and V of equal shape; validate() refuses
// others.
struct KvLayout {
  std::vector<KvGroup> groups;
  DType dtype = DType::kBF16;
  uint32_t block_tokens = 16;
  uint32_t head_begin = 0;  // first KV head held here, of total_heads (0 and all without TP)
  uint32_t total_heads = 0;
  std::vector<uint32_t> shard_heads;  // heads of each shard, in order; empty: one shard has all
  size_t shard_block_stride = 0;      // of a shard(): from its block to the next; else 0
  std::string rope;  // parameters that change K's values; compared, never interpreted

  // K and V for `layers` layers of `kv_heads` heads.
  static KvLayout full_kv(uint32_t layers, uint32_t kv_heads, uint32_t head_dim, DType dtype,
                          uint32_t block_tokens);

  // kUnsupported or kInvalidArgument with a sentence; call before any of the below on foreign
  // input.
  status validate() const;

  uint32_t num_layers() const { return groups[0].layer_end; }
  uint32_t num_planes() const { return static_cast<uint32_t>(groups[0].planes.size()); }
  uint32_t num_heads() const { return groups[0].planes[0].heads; }
  size_t vector_bytes() const { return groups[0].planes[0].vector_bytes; }
  size_t head_bytes() const { return block_tokens * vector_bytes(); }
  size_t plane_bytes() const { return num_heads() * head_bytes(); }
  size_t layer_bytes() const { return num_planes() * plane_bytes(); }
  size_t block_bytes() const { return num_layers() * layer_bytes(); }
  size_t block_stride() const {
    return shard_block_stride == 0 ? block_bytes() : shard_block_stride;
  }
  // Of a vector. Of layouts of several shards, `head` says which one it is in.
  size_t offset(BlockId block, uint32_t layer, uint32_t plane = 0, uint32_t head = 0,
                uint32_t token = 0) const {
    if (num_shards() > 1) return offset_in_shard(block, layer, plane, head, token);
    return block.value * block_stride() + layer * layer_bytes() + plane * plane_bytes() +
           head * head_bytes() + token * vector_bytes();
  }

  uint32_t num_shards() const {
    return shard_heads.empty() ? 1 : static_cast<uint32_t>(shard_heads.size());
  }
  uint32_t heads_of_shard(uint32_t i) const {
    return shard_heads.empty() ? num_heads() : shard_heads[i];
  }
  // One shard's part as a layout, to be used from shard_offset(i) of the memory on. Its
  // blocks are as far apart as the whole's.
  KvLayout shard(uint32_t i) const;
  size_t shard_offset(uint32_t i) const;  // bytes from the start of a block
  // A shard's layout where nothing else lies between its blocks: a GPU has its rank's alone.
  KvLayout on_its_own() const {
    KvLayout own = *this;
    own.shard_block_stride = 0;
    return own;
  }
  uint32_t blocks_for(uint32_t tokens) const { return (tokens + block_tokens - 1) / block_tokens; }

  // Canonical text of everything above: equal layouts have equal text.
  std::string to_string() const;
  friend bool operator==(const KvLayout&, const KvLayout&) = default;

 private:
  size_t offset_in_shard(BlockId block, uint32_t layer, uint32_t plane, uint32_t head,
                         uint32_t token) const;
};

}  // namespace baton::kvcache
