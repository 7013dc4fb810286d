#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "common/kvcache/layout.h"

// What the cache of gpu_source.cc holds, for who reads it.
namespace baton::worker {

inline constexpr uint32_t kPatternBlocks = 96;
inline constexpr uint64_t kPatternSeed = 7;

inline kvcache::KvLayout pattern_layout() {
  return kvcache::KvLayout::full_kv(4, 4, 128, DType::kBF16, 64);
}

inline std::vector<std::byte> pattern(uint64_t seed) {
  std::vector<std::byte> bytes(kPatternBlocks * pattern_layout().block_bytes());
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  return bytes;
}

}  // namespace baton::worker
