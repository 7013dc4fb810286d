#include "common/ops/cpu/attention_dot.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "hwy/base.h"

#if HWY_ARCH_X86_64

#include <immintrin.h>

namespace baton::ops {
namespace {

constexpr uint32_t kRun = kMinBlockTokens;  // tokens that lie in one block, for any size of blocks
constexpr uint32_t kColumns = kDotColumns;
constexpr uint32_t kPair = 2 * kColumns;  // elements of a panel from a pair to the next
constexpr uint32_t kPiece = 64;           // tokens whose values are expanded at a time, if not kept

// The next tile's keys come evenly if each phase brings in its part: where a tile is not kept,
// those of a piece's last run come while keys are multiplied, the others while values are.
constexpr bool ends_piece(uint32_t run) { return run % kPiece == kPiece - kRun; }
static_assert(kColumns == 2 * kRun);

constexpr uint32_t value_panels(uint32_t head_dim) { return (head_dim + kColumns - 1) / kColumns; }

}  // namespace

#if HWY_COMPILER_GCC_ACTUAL
// Of GCC's own headers, wrongly (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512bf16")
namespace {

HWY_INLINE __m512i load_two(const std::byte* low, const std::byte* high) {
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

// Tokens i and i + 1 of either half of 16, and 2 and 3 after them, as the four pairs of a 128-bit
// lane: out[j] has pair j (and j + 4 in the odd lanes) of the four tokens.
HWY_INLINE void transpose_4(const __m512i* token, __m512i* out) {
  const __m512i a = _mm512_unpacklo_epi32(token[0], token[1]);
  const __m512i b = _mm512_unpackhi_epi32(token[0], token[1]);
  const __m512i c = _mm512_unpacklo_epi32(token[2], token[3]);
  const __m512i d = _mm512_unpackhi_epi32(token[2], token[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

// Eight pairs (16 dimensions) of 16 tokens: to[pair][token][2], kPair elements from pair to pair.
HWY_INLINE void transpose_8_pairs(const std::byte* token, size_t stride,
                                  uint16_t* HWY_RESTRICT to) {
  __m512i v[8], low[4], high[4];
  HWY_UNROLL(8)
  for (int i = 0; i < 8; ++i, token += stride) v[i] = load_two(token, token + 8 * stride);
  transpose_4(v, low);
  transpose_4(v + 4, high);
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
  const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  HWY_UNROLL(4)
  for (int j = 0; j < 4; ++j) {
    _mm512_store_si512(to + j * kPair, _mm512_permutex2var_epi64(low[j], even, high[j]));
    _mm512_store_si512(to + (j + 4) * kPair, _mm512_permutex2var_epi64(low[j], odd, high[j]));
  }
}

// Two tokens' values, dimension by dimension: [32][2], in two vectors.
struct Interleaved {
  __m512i low, high;
};
HWY_INLINE Interleaved interleave(__m512i a, __m512i b) {
  alignas(64) static constexpr uint16_t kLow[] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                  11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i low = _mm512_load_si512(kLow);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  return {_mm512_permutex2var_epi16(a, low, b), _mm512_permutex2var_epi16(a, high, b)};
}

// For the dimensions of the mask, of 32.
HWY_INLINE void interleave_to(const std::byte* a, const std::byte* b, __mmask32 mask,
                              uint16_t* HWY_RESTRICT to) {
  const Interleaved v =
      interleave(_mm512_maskz_loadu_epi16(mask, a), _mm512_maskz_loadu_epi16(mask, b));
  _mm512_store_si512(to, v.low);
  _mm512_store_si512(to + kColumns, v.high);
}

// A pair of which the second token is left out.
HWY_INLINE void copy_first(const uint16_t* pair, uint16_t* to) {
  const __m512i first = _mm512_set1_epi32(0xffff);
  _mm512_store_si512(to, _mm512_and_si512(_mm512_load_si512(pair), first));
  _mm512_store_si512(to + kColumns, _mm512_and_si512(_mm512_load_si512(pair + kColumns), first));
}

HWY_INLINE void prefetch(const std::byte* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(from + at, 0, 3);
}

// 64 dimensions of the outputs of a few queries that see the same tokens: their pairs are used as
// they are made. The same dimensions of the keys of `next` are brought into cache meanwhile.
template <size_t kRows>
HWY_NOINLINE void values_of_few(const KvTile& tile, const QueryGroup& group,
                                const uint16_t* weights, uint32_t dimension, const KvTile& next) {
  alignas(64) static constexpr std::byte kZeros[2 * 64] = {};
  const size_t stride = tile.kv.token_stride, offset = dimension * sizeof(uint16_t);
  __m512 acc[kRows][4];
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t v = 0; v < 4; ++v) acc[r][v] = _mm512_setzero_ps();
  }
  for (uint32_t run = 0; run < group.seen[0]; run += kRun, weights += kRun) {
    const std::byte* token = tile.vector(kValuePlane, run) + offset;
    const std::byte* keys = next.run(kKeyPlane, run);
    const uint32_t count = std::min(kRun, group.seen[0] - run);
    for (uint32_t t = 0; t < count; t += 2, token += 2 * stride) {
      if (keys != nullptr && !ends_piece(run)) {
        prefetch(keys + offset + t * stride, 2 * 64);
        prefetch(keys + offset + (t + 1) * stride, 2 * 64);
      }
      const std::byte* second = t + 1 < count ? token + stride : kZeros;
      const Interleaved a = interleave(_mm512_loadu_si512(token), _mm512_loadu_si512(second));
      const Interleaved b =
          interleave(_mm512_loadu_si512(token + 64), _mm512_loadu_si512(second + 64));
      const __m512i v[4] = {a.low, a.high, b.low, b.high};
      HWY_UNROLL(4)
      for (size_t r = 0; r < kRows; ++r) {
        int two;
        std::memcpy(&two, weights + r * kAttentionTile + t, sizeof(two));
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
        HWY_UNROLL(4)
        for (size_t i = 0; i < 4; ++i) {
          acc[r][i] = _mm512_dpbf16_ps(acc[r][i], x, reinterpret_cast<__m512bh>(v[i]));
        }
      }
    }
  }
  HWY_UNROLL(4)
  for (size_t r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (size_t i = 0; i < 4; ++i) {
      _mm512_storeu_ps(group.records[r] + dimension + 16 * i, acc[r][i]);
    }
  }
}

constexpr int kFew = 4;
constexpr decltype(&values_of_few<1>) kValuesOfFew[kFew + 1] = {
    nullptr, values_of_few<1>, values_of_few<2>, values_of_few<3>, values_of_few<4>};

}  // namespace

// Tokens [first, first + 16) of the tile, those beyond its end included: they are in memory of the
// same block, whatever it holds, and their scores are not used. The values of these tokens are
// brought into cache meanwhile, and the next keys, which are likely no farther than L2.
void DotProducts::expand_keys(const KvTile& tile, uint32_t first) {
  const std::byte* token = tile.vector(kKeyPlane, first);
  const std::byte* values = tile.vector(kValuePlane, first);
  const std::byte* after = tile.run(kKeyPlane, first + kRun);
  const size_t stride = tile.kv.token_stride, share = kRun * stride / (head_dim_ / 16);
  uint16_t* to = key_panel(first) + first % kColumns * 2;
  for (uint32_t d = 0; d < head_dim_; d += 16, to += 8 * kPair, token += 32, values += share) {
    prefetch(values, share);
    if (after != nullptr) prefetch(after + d / 16 * share, share);
    transpose_8_pairs(token, stride, to);
  }
}

// Tokens [begin, end) of the tile, of which `begin` is a multiple of 16. The keys of the tokens of
// `next` in their places are brought into cache meanwhile.
void DotProducts::expand_values(const KvTile& tile, uint32_t begin, uint32_t end,
                                const KvTile& next) {
  alignas(64) static constexpr std::byte kZeros[kMaxHeadDim * sizeof(uint16_t)] = {};
  const size_t stride = tile.kv.token_stride;
  const uint32_t whole_panels = head_dim_ / kColumns;
  uint16_t* to = value_panel(0);
  const size_t panel_stride = static_cast<size_t>(value_panel(1) - to);
  for (uint32_t run = begin; run < end; run += kRun) {
    const std::byte* token = tile.vector(kValuePlane, run);
    const std::byte* keys = next.run(kKeyPlane, run);
    for (uint32_t t = run; t < std::min(run + kRun, end);
         t += 2, token += 2 * stride, to += kPair) {
      if (keys != nullptr && (keep_ || !ends_piece(run))) {
        prefetch(keys + (t - run) * stride, 2 * stride);
      }
      const std::byte* second = t + 1 < end ? token + stride : kZeros;
      for (uint32_t p = 0; p < whole_panels; ++p) {
        interleave_to(token + p * 64, second + p * 64, ~__mmask32{0}, to + p * panel_stride);
      }
      if (head_dim_ % kColumns == 0) continue;
      interleave_to(token + whole_panels * 64, second + whole_panels * 64, 0xffff,
                    to + whole_panels * panel_stride);
    }
  }
}

// Goes on with a query's chains for tokens [from, to) of those expanded from `begin` on; `from` is
// even.
void DotProducts::add_tokens(int query, uint32_t begin, uint32_t from, uint32_t to, float* record) {
  const size_t pairs = (to - from) / 2;
  const uint16_t* weights = weights_ + static_cast<uint32_t>(query) * kAttentionTile + from;
  DotArgs args = {.a = weights,
                  .a_stride = 0,
                  .b = value_panel(0) + (from - begin) / 2 * kPair,
                  .b_stride = static_cast<size_t>(value_panel(1) - value_panel(0)),
                  .pairs = pairs,
                  .out = &record,
                  .columns = head_dim_,
                  .go_on = true};
  if (pairs > 0) dot_rows(args, 1);
  if (to % 2 == 0) return;
  alignas(64) uint16_t last[value_panels(kMaxHeadDim) * kPair];
  for (uint32_t p = 0; p < value_panels(head_dim_); ++p) {
    copy_first(args.b + p * args.b_stride + pairs * kPair, last + p * kPair);
  }
  args.a += 2 * pairs;
  args.b = last;
  args.b_stride = kPair;
  args.pairs = 1;
  dot_rows(args, 1);
}

HWY_POP_ATTRIBUTES

size_t DotProducts::scratch_bytes(uint32_t head_dim) {
  const size_t keys = size_t{kAttentionTile} * head_dim;
  const size_t values = size_t{kAttentionTile} * kColumns * value_panels(head_dim);
  const size_t rows = size_t{kMaxRows} * (head_dim + kAttentionTile);
  return (keys + values + rows) * sizeof(uint16_t);
}

void DotProducts::take_scratch(std::byte* scratch, uint32_t head_dim) {
  head_dim_ = head_dim;
  keys_ = reinterpret_cast<uint16_t*>(scratch);
  values_ = keys_ + kAttentionTile * head_dim;
  weights_ = values_ + size_t{kAttentionTile} * kColumns * value_panels(head_dim);
  queries_ = weights_ + size_t{kMaxRows} * kAttentionTile;
}

void DotProducts::begin_tile(bool more_groups) {
  keep_ = more_groups;
  expanded_keys_ = 0;
  expanded_values_ = 0;
}

uint16_t* DotProducts::key_panel(uint32_t token) const {
  return keys_ + (keep_ ? token : token % kPiece) / kColumns * kColumns * head_dim_;
}

uint16_t* DotProducts::value_panel(uint32_t panel) const {
  return values_ + panel * (keep_ ? kAttentionTile : kPiece) * kColumns;
}

void DotProducts::multiply_keys(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                                float* const* scores) {
  for (int i = 0; i < group.count; ++i) {
    round_to_bf16(group.q[i], head_dim_, queries_ + static_cast<uint32_t>(i) * head_dim_);
  }
  const uint32_t tokens = (group.seen[group.count - 1] + kRun - 1) / kRun * kRun;
  DotArgs args = {.a = queries_,
                  .a_stride = head_dim_,
                  .b_stride = size_t{head_dim_} * kColumns,
                  .pairs = head_dim_ / 2,
                  .out = scores,
                  .ahead_step = kRun * tile.kv.token_stride / (head_dim_ / 2)};
  for (uint32_t t = 0; t < tokens; t += kPiece) {
    const uint32_t end = std::min(t + kPiece, tokens);
    for (; expanded_keys_ < end; expanded_keys_ += kRun) expand_keys(tile, expanded_keys_);
    args.b = key_panel(t);
    args.column = t;
    args.columns = end - t;
    if (!keep_) args.ahead = next.run(kKeyPlane, t + kPiece - kRun);
    dot_rows(args, static_cast<size_t>(group.count));
  }
}

void DotProducts::multiply_values(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                                  float* const* scores) {
  for (int i = 0; i < group.count; ++i) {
    round_to_bf16(scores[i], group.seen[i], weights_ + static_cast<uint32_t>(i) * kAttentionTile);
  }
  const bool few = !keep_ && group.count <= kFew && head_dim_ % 64 == 0 &&
                   group.seen[0] == group.seen[group.count - 1];
  if (few) {
    for (uint32_t d = 0; d < head_dim_; d += 64) {
      kValuesOfFew[group.count](tile, group, weights_, d, next);
    }
    return;
  }
  const uint32_t piece = keep_ ? kAttentionTile : kPiece;
  const uint32_t common = group.seen[0] / 2 * 2;  // tokens that all of them see, in pairs
  for (uint32_t begin = 0; begin < tile.tokens; begin += piece) {
    const uint32_t end = std::min(begin + piece, tile.tokens);
    if (expanded_values_ < end) expand_values(tile, begin, end, next);
    expanded_values_ = end;
    const DotArgs args = {.a = weights_ + begin,
                          .a_stride = kAttentionTile,
                          .b = value_panel(0),
                          .b_stride = static_cast<size_t>(value_panel(1) - value_panel(0)),
                          .pairs = begin < common ? (std::min(end, common) - begin) / 2 : 0,
                          .out = group.records,
                          .columns = head_dim_,
                          .go_on = begin > 0};
    if (args.pairs > 0 || begin == 0) dot_rows(args, static_cast<size_t>(group.count));
    for (int i = 0; i < group.count; ++i) {
      const uint32_t from = std::max(begin, common), to = std::min(end, group.seen[i]);
      if (from < to) add_tokens(i, begin, from, to, group.records[i]);
    }
  }
}

}  // namespace baton::ops

#else

namespace baton::ops {

size_t DotProducts::scratch_bytes(uint32_t) { return 0; }
void DotProducts::take_scratch(std::byte*, uint32_t) {}
void DotProducts::begin_tile(bool) {}
void DotProducts::multiply_keys(const KvTile&, const QueryGroup&, float* const*) { std::abort(); }
void DotProducts::multiply_values(const KvTile&, const QueryGroup&, const KvTile&, float* const*) {
  std::abort();
}

}  // namespace baton::ops

#endif
