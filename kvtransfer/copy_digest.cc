#include "kvtransfer/copy_digest.h"

#define XXH_INLINE_ALL  // a call for each vector would cost as much as the hash
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "common/kvcache/digest_place.h"

namespace baton::kvtransfer {
namespace {

using kvcache::place_seed;
constexpr size_t kPartBytes = kvcache::kDigestPartBytes;

// One layer of one block on both sides, from the range's first token in it.
struct Run {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  uint32_t layer = 0, position = 0, num_tokens = 0;
};

// Copies up to a part of a vector, and hashes the copy. While that is computed, the part at its
// place in the next run is on its way from memory, on both sides: it hides the jump between blocks.
[[gnu::always_inline]] inline uint64_t copy_part(const Run& run, const Run& next, size_t at,
                                                 size_t bytes, uint64_t seed) {
  constexpr size_t kLine = 64;
  for (size_t line = 0; line < bytes; line += kLine) {
    __builtin_prefetch(next.from + at + line, 0, 2);
    __builtin_prefetch(next.to + at + line, 1, 2);
  }
  std::memcpy(run.to + at, run.from + at, bytes);
  // Without this the compiler may hash `from` instead, which can have changed since.
  asm volatile("" ::: "memory");
  return XXH3_64bits_withSeed(run.to + at, bytes, seed);
}

// kTail: vectors are not a whole number of parts. Without, all sizes are known when this is
// compiled, and the hash, which is a third of the work, is a few instructions of this loop.
template <bool kTail>
[[gnu::flatten]] uint64_t copy_run(const kvcache::KvLayout& l, const Run& run, const Run& next) {
  const uint32_t planes = l.num_planes(), heads = l.num_heads();
  const size_t vector_bytes = l.vector_bytes();
  const size_t whole = vector_bytes / kPartBytes * kPartBytes;
  uint64_t sum = 0;
  for (uint32_t plane = 0; plane < planes; ++plane) {
    for (uint32_t head = 0; head < heads; ++head) {
      size_t vector = plane * l.plane_bytes() + head * l.head_bytes();
      for (uint32_t token = 0; token < run.num_tokens; ++token, vector += vector_bytes) {
        const uint64_t seed =
            place_seed(run.layer, plane, l.head_begin + head, run.position + token);
        for (size_t part = 0; part < whole; part += kPartBytes) {
          sum += copy_part(run, next, vector + part, kPartBytes, seed + part);
        }
        if (kTail) {
          sum += copy_part(run, next, vector + whole, vector_bytes - whole, seed + whole);
        }
      }
    }
  }
  return sum;
}

}  // namespace

uint64_t copy_digest(const kvcache::KvLayout& l, const std::byte* source_cache, BlockRun source,
                     std::byte* sink_cache, BlockRun sink, const KvRange& range) {
  const auto run_at = [&](uint32_t position, uint32_t layer) {
    const uint32_t token = (position - sink.first_token) % l.block_tokens;
    const BlockId from = source.blocks[(position - source.first_token) / l.block_tokens];
    const BlockId to = sink.blocks[(position - sink.first_token) / l.block_tokens];
    return Run{source_cache + l.offset(from, layer, 0, 0, token),
               sink_cache + l.offset(to, layer, 0, 0, token), layer, position,
               std::min(range.token_end - position, l.block_tokens - token)};
  };
  const auto copy_run = l.vector_bytes() % kPartBytes == 0 ? ::baton::kvtransfer::copy_run<false>
                                                           : ::baton::kvtransfer::copy_run<true>;
  uint64_t sum = 0;
  Run run = run_at(range.token_begin, range.layer_begin);
  while (true) {
    uint32_t position = run.position, layer = run.layer + 1;
    if (layer == range.layer_end) {
      position += run.num_tokens;
      layer = range.layer_begin;
    }
    const bool last = position == range.token_end;
    const Run next = last ? run : run_at(position, layer);
    sum += copy_run(l, run, next);
    if (last) return sum;
    run = next;
  }
}

}  // namespace baton::kvtransfer
