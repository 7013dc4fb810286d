#include "common/kvcache/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <numeric>

namespace baton::kvcache {
namespace {

// What a digest's seed has room for (digest.cc), far above any model.
constexpr uint32_t kMaxLayers = 65535;
constexpr uint32_t kMaxHeads = 4096;
constexpr size_t kMaxShards = 64;
// Attention works on tiles of 256 tokens; a tile is a whole number of blocks.
constexpr uint32_t kMaxBlockTokens = 256;
constexpr uint32_t kMaxVectorBytes = 1u << 20;
constexpr size_t kMaxBlockBytes = size_t{1} << 40;
constexpr size_t kMaxRopeText = 4096;

std::string_view name(GroupKind kind) {
  switch (kind) {
    case GroupKind::kFull:
      return "full";
    case GroupKind::kWindow:
      return "window";
    case GroupKind::kState:
      return "state";
  }
  return "?";
}

status unsupported(std::string what) {
  return error(Errc::kUnsupported, "KV layout: " + std::move(what));
}
status invalid(std::string what) {
  return error(Errc::kInvalidArgument, "KV layout: " + std::move(what));
}

// Version 1 does one group of K and V over all layers.
status check_shape_is_offered(const KvLayout& layout) {
  if (layout.groups.size() != 1) {
    return unsupported(
        fmt::format("{} layer groups; exactly one is supported (no sliding-window, "
                    "state-space or mixed models yet)",
                    layout.groups.size()));
  }
  const KvGroup& group = layout.groups[0];
  if (group.kind != GroupKind::kFull) {
    return unsupported(fmt::format("group kind '{}'; only 'full' is supported", name(group.kind)));
  }
  if (group.planes.size() != 2 || group.planes[0].name != "k" || group.planes[1].name != "v") {
    return unsupported(
        fmt::format("{} planes; exactly 'k' and 'v' are supported (no latent attention yet)",
                    group.planes.size()));
  }
  if (group.planes[0].heads != group.planes[1].heads ||
      group.planes[0].vector_bytes != group.planes[1].vector_bytes) {
    return unsupported("planes 'k' and 'v' differ in shape");
  }
  if (layout.dtype == DType::kI32) return unsupported("dtype i32");
  return {};
}

status check_numbers(const KvLayout& layout) {
  const KvGroup& group = layout.groups[0];
  const KvPlane& plane = group.planes[0];
  if (group.layer_begin != 0 || group.layer_end == 0 || group.layer_end > kMaxLayers) {
    return invalid(fmt::format("layers [{}, {}) are not [0, 1..{})", group.layer_begin,
                               group.layer_end, kMaxLayers));
  }
  if (plane.heads == 0 || plane.heads > kMaxHeads || layout.total_heads > kMaxHeads ||
      layout.head_begin > layout.total_heads ||
      plane.heads > layout.total_heads - layout.head_begin) {
    return invalid(fmt::format("{} heads from {} do not lie in 1..{} heads of which there are {}",
                               plane.heads, layout.head_begin, kMaxHeads, layout.total_heads));
  }
  if (plane.vector_bytes == 0 || plane.vector_bytes > kMaxVectorBytes ||
      plane.vector_bytes % size_bytes(layout.dtype) != 0) {
    return invalid(fmt::format("a vector of {} bytes is no whole number of {}", plane.vector_bytes,
                               baton::name(layout.dtype)));
  }
  if (!std::has_single_bit(layout.block_tokens) || layout.block_tokens > kMaxBlockTokens) {
    return invalid(fmt::format("{} tokens in a block; a power of two up to {} is needed",
                               layout.block_tokens, kMaxBlockTokens));
  }
  if (layout.rope.size() > kMaxRopeText) return invalid("the rope text is too long");
  return {};
}

// Whoever splits the heads splits all of them.
status check_shards(const KvLayout& layout) {
  if (layout.shard_block_stride != 0) return invalid("a shard is no layout of a worker");
  if (layout.shard_heads.empty()) return {};
  const auto& shards = layout.shard_heads;
  const uint64_t sum = std::accumulate(shards.begin(), shards.end(), uint64_t{0});
  if (shards.size() > kMaxShards || sum != layout.num_heads() ||
      std::find(shards.begin(), shards.end(), 0u) != shards.end()) {
    return invalid(fmt::format("{} shards of {} heads do not split {} heads (into at most {})",
                               shards.size(), sum, layout.num_heads(), kMaxShards));
  }
  return {};
}

// With the caps above no product can overflow; the result can still be absurd.
status check_block_size(const KvLayout& layout) {
  if (layout.block_bytes() > kMaxBlockBytes) return invalid("one block is larger than any memory");
  return {};
}

}  // namespace

KvLayout KvLayout::full_kv(uint32_t layers, uint32_t kv_heads, uint32_t head_dim, DType dtype,
                           uint32_t block_tokens) {
  const auto vector_bytes = static_cast<uint32_t>(head_dim * size_bytes(dtype));
  KvLayout layout;
  layout.groups = {{.layer_begin = 0,
                    .layer_end = layers,
                    .planes = {{"k", kv_heads, vector_bytes}, {"v", kv_heads, vector_bytes}}}};
  layout.dtype = dtype;
  layout.block_tokens = block_tokens;
  layout.total_heads = kv_heads;
  return layout;
}

status KvLayout::validate() const {
  BATON_CHECK_OK(check_shape_is_offered(*this));
  BATON_CHECK_OK(check_numbers(*this));
  BATON_CHECK_OK(check_shards(*this));
  return check_block_size(*this);
}

KvLayout KvLayout::shard(uint32_t i) const {
  if (num_shards() == 1) return *this;
  assert(i < shard_heads.size());
  KvLayout shard = *this;
  for (KvGroup& group : shard.groups) {
    for (KvPlane& plane : group.planes) plane.heads = shard_heads[i];
  }
  const auto begin = shard_heads.begin();
  shard.head_begin = std::accumulate(begin, begin + i, head_begin);
  shard.shard_heads.clear();
  shard.shard_block_stride = block_bytes();
  return shard;
}

size_t KvLayout::shard_offset(uint32_t i) const {
  if (num_shards() == 1) return 0;
  const auto begin = shard_heads.begin();
  return std::accumulate(begin, begin + i, size_t{0}) * head_bytes() * num_planes() * num_layers();
}

size_t KvLayout::offset_in_shard(BlockId block, uint32_t layer, uint32_t plane, uint32_t head,
                                 uint32_t token) const {
  uint32_t i = 0;
  size_t heads_before = 0;
  while (i + 1 < shard_heads.size() && head >= shard_heads[i]) {
    head -= shard_heads[i];
    heads_before += shard_heads[i++];
  }
  const size_t in_plane = shard_heads[i] * head_bytes();
  return block.value * block_stride() + heads_before * head_bytes() * num_planes() * num_layers() +
         (layer * num_planes() + plane) * in_plane + head * head_bytes() + token * vector_bytes();
}

std::string KvLayout::to_string() const {
  std::string text = fmt::format("kv1 {} block_tokens={} heads={}+{} rope={:?}", baton::name(dtype),
                                 block_tokens, head_begin, total_heads, rope);
  for (const KvGroup& group : groups) {
    text += fmt::format(" [{}{} layers={}..{}", name(group.kind), group.sharded ? " sharded" : "",
                        group.layer_begin, group.layer_end);
    for (const KvPlane& plane : group.planes) {
      text += fmt::format(" {:?}={}x{}", plane.name, plane.heads, plane.vector_bytes);
    }
    text += ']';
  }
  if (num_shards() > 1) text += fmt::format(" shards={}", fmt::join(shard_heads, "+"));
  return text;
}

}  // namespace baton::kvcache
