#include "tests/kvtransfer/kv_pattern.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace baton::kvtransfer {
namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void fill(std::vector<std::byte>& vector, uint64_t seed, uint32_t layer, uint32_t plane,
          uint32_t head, uint32_t position) {
  uint64_t state = mix(
      seed ^ mix(uint64_t{layer} << 48 | uint64_t{plane} << 44 | uint64_t{head} << 32 | position));
  for (size_t at = 0; at < vector.size(); at += sizeof state) {
    state = mix(state + 1);
    std::memcpy(vector.data() + at, &state, std::min(sizeof state, vector.size() - at));
  }
}

// visit(offset of the vector in the cache, its right bytes) for each vector of the range.
template <class Visit>
void for_each_vector(const kvcache::KvLayout& l, BlockRun blocks, const KvRange& range,
                     uint64_t seed, Visit visit) {
  std::vector<std::byte> right(l.vector_bytes());
  for (uint32_t position = range.token_begin; position < range.token_end; ++position) {
    const uint32_t at = position - blocks.first_token;
    const BlockId block = blocks.blocks[at / l.block_tokens];
    for (uint32_t layer = range.layer_begin; layer < range.layer_end; ++layer) {
      for (uint32_t plane = 0; plane < l.num_planes(); ++plane) {
        for (uint32_t head = 0; head < l.num_heads(); ++head) {
          fill(right, seed, layer, plane, l.head_begin + head, position);
          visit(l.offset(block, layer, plane, head, at % l.block_tokens), right);
        }
      }
    }
  }
}

}  // namespace

void write_kv(const kvcache::KvLayout& layout, std::byte* cache, BlockRun blocks,
              const KvRange& range, uint64_t seed) {
  for_each_vector(layout, blocks, range, seed, [cache](size_t offset, const auto& right) {
    std::memcpy(cache + offset, right.data(), right.size());
  });
}

size_t wrong_vectors(const kvcache::KvLayout& layout, const std::byte* cache, BlockRun blocks,
                     const KvRange& range, uint64_t seed) {
  size_t wrong = 0;
  for_each_vector(layout, blocks, range, seed, [&](size_t offset, const auto& right) {
    wrong += std::memcmp(cache + offset, right.data(), right.size()) != 0;
  });
  return wrong;
}

}  // namespace baton::kvtransfer
