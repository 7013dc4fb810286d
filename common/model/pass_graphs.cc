#include "common/model/pass_graphs.h"

#include <algorithm>
#include <bit>

namespace baton::model {
namespace {

constexpr uint32_t kFewestTokens = 256;  // one tile of attention

uint32_t filled_rows(uint32_t rows, uint32_t max_rows) {
  return std::max(rows, std::min(PassGraphs::bucket(rows), max_rows));
}

}  // namespace

// Beyond 16 rows mostly far less than a fifth is computed in vain.
uint32_t PassGraphs::bucket(uint32_t rows) {
  if (rows <= 8) return std::bit_ceil(rows);
  const uint32_t step = rows <= 64 ? 8 : rows <= 128 ? 16 : rows <= 256 ? 32 : 64;
  return (rows + step - 1) / step * step;
}

PassGraphs::Shape PassGraphs::shape_of(const ForwardBatch& batch, uint32_t max_rows) {
  const auto rows = static_cast<uint32_t>(batch.tokens.size());
  uint32_t tokens = kFewestTokens;
  for (const ops::SequenceRows& s : batch.sequences) {
    tokens = std::max(tokens, s.position + s.num_rows);
  }
  return {.rows = filled_rows(rows, max_rows),
          .max_tokens = std::bit_ceil(tokens),
          .resolves = batch.drawn != nullptr};
}

std::vector<PassGraphs::Shape> PassGraphs::likely_shapes(uint32_t rows, uint32_t tokens,
                                                         uint32_t max_rows, bool resolves) {
  std::vector<Shape> shapes;
  const uint64_t end = std::bit_ceil(std::max(tokens, kFewestTokens));
  for (uint64_t most = kFewestTokens; most <= end; most *= 2) {
    for (uint32_t r = 1; r <= std::min(rows, kMaxRows); ++r) {
      r = filled_rows(r, max_rows);
      if (r * most > kMostLikelyTokens || shapes.size() == kMostLikely) break;
      shapes.push_back({r, static_cast<uint32_t>(most), resolves});
    }
  }
  return shapes;
}

}  // namespace baton::model
