// Attention of a few query vectors over one tile of 256 tokens, and how tiles are merged.
//
// Per query: S = q * K^T (a chain over head_dim), P = exp(scale * S - max), the sum of P in the
// virtual lanes, O = P * V (a chain over the tile's tokens up to the query's own). Each depends on
// the query, the tile and the cache alone. Tokens beyond a query's own take no part: cache memory
// that was never written is never read.
#if defined(BATON_OPS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BATON_OPS_CPU_ATTENTION_TILE_INL_H_
#undef BATON_OPS_CPU_ATTENTION_TILE_INL_H_
#else
#define BATON_OPS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "common/ops/cpu/attention_types.h"
#include "common/ops/cpu/gemm_kernel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

constexpr uint32_t kMaxSegments = kAttentionTile / kMinBlockTokens;

// keys[panel][d][32] = K of the tile's tokens, 32 to a panel, zeros up to a multiple of 16. A panel
// is made when it is first multiplied, so that it is in L1 then.
constexpr uint32_t kKeyPanel = 32;
template <class T>
struct TileKeys {
  T* data;                // [256 / 32][head_dim][32]
  uint32_t expanded = 0;  // tokens of it that are made
};

// Transposes 16 tokens x 8 dimensions; out[d] is kKeyPanel elements from out[d + 1].
HWY_INLINE void transpose_8(const uint16_t* const (&token)[16], uint32_t d,
                            uint16_t* HWY_RESTRICT out) {
  const hn::FixedTag<uint16_t, 16> d16;
  const hn::FixedTag<uint16_t, 8> half;
  const hn::Repartition<uint32_t, decltype(d16)> d32;
  const hn::Repartition<uint64_t, decltype(d16)> d64;
  using V = hn::Vec<decltype(d32)>;
  V low[4], high[4];  // pairs of tokens: dimensions 0-3 and 4-7
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    const auto a =
        hn::Combine(d16, hn::LoadU(half, token[2 * i + 8] + d), hn::LoadU(half, token[2 * i] + d));
    const auto b = hn::Combine(d16, hn::LoadU(half, token[2 * i + 9] + d),
                               hn::LoadU(half, token[2 * i + 1] + d));
    low[i] = hn::BitCast(d32, hn::InterleaveLower(d16, a, b));
    high[i] = hn::BitCast(d32, hn::InterleaveUpper(d16, a, b));
  }
  const auto store_4 = [&](const V(&v)[4], uint16_t* HWY_RESTRICT to) HWY_ATTR {
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d32, v[0], v[1]));
    const auto b = hn::BitCast(d64, hn::InterleaveLower(d32, v[2], v[3]));
    const auto c = hn::BitCast(d64, hn::InterleaveUpper(d32, v[0], v[1]));
    const auto e = hn::BitCast(d64, hn::InterleaveUpper(d32, v[2], v[3]));
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, a, b)), d16, to);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, a, b)), d16, to + kKeyPanel);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, c, e)), d16, to + 2 * kKeyPanel);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, c, e)), d16, to + 3 * kKeyPanel);
  };
  store_4(low, out);
  store_4(high, out + 4 * kKeyPanel);
}

// `next`: 16 tokens that come after these, to be brought into L1 meanwhile.
HWY_INLINE void transpose_half(const uint16_t* const (&token)[16], uint32_t head_dim,
                               const std::byte* next, uint16_t* HWY_RESTRICT out) {
  for (uint32_t d = 0; d < head_dim; d += 8, next += 256) {
    for (int line = 0; line < 4; ++line) __builtin_prefetch(next + line * 64, 0, 3);
    transpose_8(token, d, out + d * kKeyPanel);
  }
}
HWY_INLINE void transpose_half(const float* const (&token)[16], uint32_t head_dim, const std::byte*,
                               float* HWY_RESTRICT out) {
  for (uint32_t d = 0; d < head_dim; ++d) {
    for (uint32_t t = 0; t < 16; ++t) out[d * kKeyPanel + t] = token[t][d];
  }
}

// Keys [first, first + 16 or fewer) of the tile; `first` is a multiple of 16.
template <class T>
HWY_NOINLINE void expand_keys(const KvTile& tile, uint32_t first, T* HWY_RESTRICT keys) {
  alignas(64) static constexpr T kZeros[kMaxHeadDim] = {};
  const uint32_t head_dim = tile.kv.head_dim;
  // 16 tokens lie within one block: block_tokens is a multiple of 16.
  const std::byte* base = tile.vector(kKeyPlane, first);
  const T* token[16];
  for (uint32_t t = 0; t < 16; ++t) {
    token[t] = first + t < tile.tokens ? reinterpret_cast<const T*>(base + t * tile.kv.token_stride)
                                       : kZeros;
  }
  const std::byte* next = tile.run(kKeyPlane, first + 16);
  transpose_half(token, head_dim, next != nullptr ? next : base,
                 keys + first / kKeyPanel * kKeyPanel * head_dim + first % kKeyPanel);
}

// s[0..valid) becomes exp(scale * s - max), up to the next multiple of 16 it becomes 0. `max` is of
// scale * s: rounding keeps the order, so it is scale times the largest s.
HWY_NOINLINE void softmax_row(float* HWY_RESTRICT s, uint32_t valid, float scale, float* max,
                              float* sum) {
  const F32 d;
  const uint32_t padded = (valid + 15) / 16 * 16;
  std::fill(s + valid, s + padded, -std::numeric_limits<float>::infinity());
  VecF highest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (uint32_t i = 0; i < padded; i += kLanes) highest = hn::Max(highest, hn::LoadU(d, s + i));
  *max = hn::GetLane(hn::MaxOfLanes(d, highest)) * scale;
  const VecF m = hn::Set(d, *max), factor = hn::Set(d, scale);
  VecF part[kParts];
  for (VecF& p : part) p = hn::Zero(d);
  for (uint32_t i = 0; i < padded; i += kVirtualLanes) {
    for (size_t p = 0; p < kParts; ++p) {
      float* at = s + i + p * kLanes;
      const VecF e = exp_f32(hn::Sub(hn::Mul(hn::LoadU(d, at), factor), m));
      hn::StoreU(e, d, at);
      part[p] = hn::Add(part[p], e);
    }
  }
  *sum = sum_lanes(part);
}

// A record: head_dim outputs, the maximum, the sum. `into` gains `from`; tiles come in order. A sum
// of 0 is an empty record: any other holds its own maximum's exp(0) = 1.
HWY_INLINE void merge_record(const float* HWY_RESTRICT from, uint32_t head_dim,
                             float* HWY_RESTRICT into) {
  const F32 d;
  float &max = into[head_dim], &sum = into[head_dim + 1];
  if (from[head_dim + 1] == 0.0f) return;
  if (sum == 0.0f) {
    std::memcpy(into, from, (head_dim + 2) * sizeof(float));
    return;
  }
  const float highest = std::max(max, from[head_dim]);
  const VecF a = exp_f32(hn::Set(d, max - highest));
  const VecF b = exp_f32(hn::Set(d, from[head_dim] - highest));
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    const VecF kept = hn::Mul(hn::LoadU(d, into + i), a);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, from + i), b, kept), d, into + i);
  }
  sum = hn::GetLane(hn::MulAdd(hn::Set(d, from[head_dim + 1]), b, hn::Mul(hn::Set(d, sum), a)));
  max = highest;
}

// out = record / sum.
template <class T>
HWY_INLINE void finish_record(const float* HWY_RESTRICT record, uint32_t head_dim,
                              T* HWY_RESTRICT out) {
  const F32 d;
  const VecF sum = hn::Set(d, record[head_dim + 1]);
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    store_f32(hn::Div(hn::LoadU(d, record + i), sum), out + i);
  }
}

// scores[i] = q[i] * K^T for all tokens that the last query sees. The tile's values are brought
// into cache meanwhile, if its keys are used for the first time.
template <class T>
HWY_INLINE void multiply_keys(const KvTile& tile, TileKeys<T>& keys, const QueryGroup& group,
                              bool first, float* const* scores) {
  const uint32_t head_dim = tile.kv.head_dim;
  const uint32_t run_bytes = 16 * static_cast<uint32_t>(tile.kv.token_stride);
  const size_t halves = (group.seen[group.count - 1] + kHalf - 1) / kHalf;
  Segment segments[2] = {{keys.data, head_dim / 2},
                         {keys.data + head_dim / 2 * kKeyPanel, head_dim / 2}};
  const GemmArgs args = {.a = group.q,
                         .segments = segments,
                         .num_segments = 2,
                         .row_stride = kKeyPanel,
                         .panel_stride = head_dim * kKeyPanel,
                         .out = scores,
                         .columns = halves * kHalf,
                         .bias = nullptr,
                         .accumulate = false,
                         .prefetch_step = first ? run_bytes / (head_dim / 2) : 0};
  for (size_t h = 0; h < halves; h += 2) {
    const size_t end = std::min(h + 2, halves);
    for (; keys.expanded < end * kHalf; keys.expanded += kHalf) {
      expand_keys(tile, keys.expanded, keys.data);
    }
    if (first) {
      segments[0].prefetch = tile.run(kValuePlane, static_cast<uint32_t>(h * kHalf));
      segments[1].prefetch = tile.run(kValuePlane, static_cast<uint32_t>((h + 1) * kHalf));
    }
    gemm_rows<T>(args, group.count, h, end);
  }
}

// Goes on with a query's chain for the tokens that it sees and the group's first does not.
template <class T>
HWY_INLINE void add_values(const KvTile& tile, const float* p, uint32_t from, uint32_t to,
                           float* HWY_RESTRICT out) {
  const F32 d;
  for (uint32_t t = from; t < to; ++t) {
    const T* v = reinterpret_cast<const T*>(tile.vector(kValuePlane, t));
    const VecF weight = hn::Set(d, p[t]);
    for (uint32_t i = 0; i < tile.kv.head_dim; i += kLanes) {
      hn::StoreU(hn::MulAdd(weight, load_f32(v + i), hn::LoadU(d, out + i)), d, out + i);
    }
  }
}

// records[i] = scores[i] * V over the tokens that query i sees. The keys of `next`, which may be
// empty, are brought into cache meanwhile: each panel's pass takes its share of every vector.
template <class T>
HWY_INLINE void multiply_values(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                                const float* const* scores) {
  const uint32_t head_dim = tile.kv.head_dim, block_tokens = tile.kv.block_tokens;
  const uint32_t common = group.seen[0];
  Segment segments[kMaxSegments];
  size_t num_segments = 0;
  for (uint32_t t = 0; t < common; t += block_tokens) {
    segments[num_segments++] = {tile.vector(kValuePlane, t), std::min(block_tokens, common - t),
                                next.run(kKeyPlane, t)};
  }
  const GemmArgs args = {.a = scores,
                         .segments = segments,
                         .num_segments = num_segments,
                         .row_stride = tile.kv.token_stride / sizeof(T),
                         .panel_stride = 2 * kHalf,
                         .out = group.records,
                         .columns = head_dim,
                         .bias = nullptr,
                         .accumulate = false,
                         .prefetch_step = next.tokens > 0 ? tile.kv.token_stride : 0};
  const size_t halves = head_dim / kHalf;
  for (size_t h = 0; h < halves; h += 2) {
    gemm_rows<T>(args, group.count, h, std::min(h + 2, halves));
    for (size_t s = 0; s < num_segments; ++s) {
      if (segments[s].prefetch != nullptr) segments[s].prefetch += 2 * kHalf * sizeof(T);
    }
  }
  for (int i = 1; i < group.count; ++i) {
    add_values<T>(tile, scores[i], common, group.seen[i], group.records[i]);
  }
}

// The two products of a tile in f32, of a cache of T.
template <class T>
class FmaProducts {
 public:
  static constexpr int kMaxRows = HWY_NAMESPACE::kMaxRows;

  static size_t scratch_bytes(uint32_t head_dim) {
    return size_t{kAttentionTile} * head_dim * sizeof(T);
  }
  void take_scratch(std::byte* scratch, uint32_t) { keys_.data = reinterpret_cast<T*>(scratch); }

  void begin_tile(bool) {
    keys_.expanded = 0;
    first_ = true;
  }
  HWY_INLINE void multiply_keys(const KvTile& tile, const QueryGroup& group, const KvTile&,
                                float* const* scores) {
    HWY_NAMESPACE::multiply_keys(tile, keys_, group, first_, scores);
    first_ = false;
  }
  HWY_INLINE void multiply_values(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                                  float* const* scores) {
    HWY_NAMESPACE::multiply_values<T>(tile, group, next, scores);
  }

 private:
  TileKeys<T> keys_ = {};
  bool first_ = true;  // the next group is its tile's first
};

// Attention of a group over one tile. `scores`: [kMaxQueries][256]. `next`: the tile to come, if
// this group is the one that brings in what comes next, or null.
template <class Products>
HWY_NOINLINE void attend(Products& products, const KvTile& tile, const QueryGroup& group,
                         float scale, const KvTile* next, float* HWY_RESTRICT scores) {
  const uint32_t head_dim = tile.kv.head_dim;
  float* s[kMaxQueries];
  for (int i = 0; i < group.count; ++i) s[i] = scores + i * kAttentionTile;
  const KvTile nothing = {tile.kv, tile.seq, tile.head, 0, 0};
  products.multiply_keys(tile, group, next == nullptr ? nothing : *next, s);
  for (int i = 0; i < group.count; ++i) {
    float* record = group.records[i];
    softmax_row(s[i], group.seen[i], scale, &record[head_dim], &record[head_dim + 1]);
  }
  products.multiply_values(tile, group, next == nullptr ? nothing : *next, s);
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
