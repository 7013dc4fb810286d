#pragma once

#include <cstddef>
#include <cstdint>

// Parts of the digest's formula (digest.h has all of it).
namespace baton::kvcache {

// XXH3 with a seed is at its best up to 128 bytes; beyond 240 it first derives a secret from it.
inline constexpr size_t kDigestPartBytes = 128;

// Where a vector belongs, in one number; the next position's is the next number. validate() bounds
// layer to 16 bits, head to 12 and planes to 4.
inline uint64_t place_bits(uint32_t layer, uint32_t plane, uint32_t head, uint32_t position) {
  return uint64_t{layer} << 48 | uint64_t{plane} << 44 | uint64_t{head} << 32 | position;
}

inline constexpr uint64_t kPlaceFactor1 = 0xbf58476d1ce4e5b9, kPlaceFactor2 = 0x94d049bb133111eb;

// A bijection (the finaliser of splitmix64, Steele et al. 2014), so that two places never share a
// seed.
inline uint64_t place_seed(uint64_t place) {
  uint64_t x = place;
  x ^= x >> 30;
  x *= kPlaceFactor1;
  x ^= x >> 27;
  x *= kPlaceFactor2;
  return x ^ (x >> 31);
}

}  // namespace baton::kvcache
