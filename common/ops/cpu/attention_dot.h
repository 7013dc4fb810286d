#pragma once

#include "common/ops/cpu/attention_types.h"
#include "common/ops/cpu/dot_kernel.h"

namespace baton::ops {

// The two products of a tile of attention over a cache of bf16, by VDPBF16PS: scores = Q * K^T and
// outputs = P * V. Q and P are rounded to bf16. A score is a chain over head_dim, an output a chain
// over the tile's tokens up to the query's own, both in pairs. Each depends on the query, the tile
// and the cache alone; of tokens beyond a query's own nothing is read into its sums.
//
// Thread: one. Only where has_bf16_dot().
class DotProducts {
 public:
  static constexpr int kMaxRows = kMaxQueries;

  static size_t scratch_bytes(uint32_t head_dim);
  // `scratch`: 64-byte aligned.
  void take_scratch(std::byte* scratch, uint32_t head_dim);

  // Whether more groups than one will come: their tile is then expanded as a whole and kept, and
  // else piece by piece, which stays in L1.
  void begin_tile(bool more_groups);
  // scores[i][0 .. seen of the last query). The tile's values are brought into cache meanwhile.
  void multiply_keys(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                     float* const* scores);
  // records[i][0 .. head_dim). The keys of `next`, which may be empty, are brought into cache
  // meanwhile.
  void multiply_values(const KvTile& tile, const QueryGroup& group, const KvTile& next,
                       float* const* scores);

 private:
  uint16_t* key_panel(uint32_t token) const;
  uint16_t* value_panel(uint32_t panel) const;
  void expand_keys(const KvTile& tile, uint32_t first);
  void expand_values(const KvTile& tile, uint32_t begin, uint32_t end, const KvTile& next);
  void add_tokens(int query, uint32_t begin, uint32_t from, uint32_t to, float* record);

  uint32_t head_dim_ = 0;
  bool keep_ = false;
  // Expanded, in panels of 32 columns; the tokens that are: [0, ...).
  uint16_t* keys_ = nullptr;    // [256 / 32][head_dim / 2][32 tokens][2]
  uint16_t* values_ = nullptr;  // [head_dim / 32][256 / 2][32 dimensions][2]
  uint32_t expanded_keys_ = 0, expanded_values_ = 0;
  // Rounded.
  uint16_t* queries_ = nullptr;  // [kMaxRows][head_dim]
  uint16_t* weights_ = nullptr;  // [kMaxRows][256]: P
};

}  // namespace baton::ops
