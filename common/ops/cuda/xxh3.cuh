#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// XXH3, 64 bits with a seed, of 32, 64, 96 or 128 bytes, written from its public specification
// (Collet, doc/xxhash_spec.md of xxHash). Of such an input each word of 16 bytes is mixed on its
// own, and the sum of the mixes is finished: a thread can take a word.
namespace baton::ops {

struct Xxh3Secret {
  uint64_t low, high;
};

// The part of the default secret that word `i`, below `words`, is mixed with: words are taken in
// pairs, from both ends inwards.
__host__ __device__ inline Xxh3Secret xxh3_secret(uint32_t i, uint32_t words) {
  static constexpr uint64_t kSecret[16] = {
      0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072,
      0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0,
      0xcb00c391bb52283c, 0xa32e531b8b65d088, 0x4ef90da297486471, 0xd8acdea946ef1938,
      0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a, 0x647378d9c97e9fc8};
  const uint32_t at = i < words / 2 ? 2 * i : 2 * (words - 1 - i) + 1;
  return {kSecret[2 * at], kSecret[2 * at + 1]};
}

__host__ __device__ inline uint64_t xxh3_mix(uint64_t low, uint64_t high, const Xxh3Secret& secret,
                                             uint64_t seed) {
  const unsigned __int128 product =
      static_cast<unsigned __int128>(low ^ (secret.low + seed)) * (high ^ (secret.high - seed));
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

__host__ __device__ inline uint64_t xxh3_finish(uint64_t sum_of_mixes, uint32_t bytes) {
  uint64_t h = sum_of_mixes + bytes * 0x9e3779b185ebca87;
  h ^= h >> 37;
  h *= 0x165667919e3779f9;
  return h ^ (h >> 32);
}

}  // namespace baton::ops
