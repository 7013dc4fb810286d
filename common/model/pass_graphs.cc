#include "common/model/pass_graphs.h"

#include <algorithm>
#include <bit>

namespace baton::model {
namespace {

constexpr uint32_t kFewestTokens = 256;  // one tile of attention

// 1, 2, 4, 8, then by 8 to 64, by 16 to 128, by 32 to 256, by 64: beyond 16 rows mostly far less
// than a fifth is computed in vain.
uint32_t bucket(uint32_t rows) {
  if (rows <= 8) return std::bit_ceil(rows);
  const uint32_t step = rows <= 64 ? 8 : rows <= 128 ? 16 : rows <= 256 ? 32 : 64;
  return (rows + step - 1) / step * step;
}

}  // namespace

PassGraphs::Shape PassGraphs::shape_of(const ForwardBatch& batch, uint32_t max_rows) {
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  uint32_t tokens = kFewestTokens;
  for (const ops::SequenceRows& s : batch.sequences) {
    tokens = std::max(tokens, s.position + s.num_rows);
  }
  return {.rows = std::max(rows, std::min(bucket(rows), max_rows)),
          .max_tokens = std::bit_ceil(tokens),
          .resolves = batch.drawn != nullptr};
}

}  // namespace baton::model
