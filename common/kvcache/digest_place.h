#pragma once

#include <cstddef>
#include <cstdint>

// What both who digests a block and who digests while copying it go by (digest.h has the formula).
namespace baton::kvcache {

// XXH3 with a seed is at its best up to 128 bytes; beyond 240 it first derives a secret from it.
inline constexpr size_t kDigestPartBytes = 128;

// A bijection (the finaliser of splitmix64, Steele et al. 2014), so that two places never share a
// seed. validate() bounds layer to 16 bits, head to 12 and planes to 4.
inline uint64_t place_seed(uint32_t layer, uint32_t plane, uint32_t head, uint32_t position) {
  uint64_t x = uint64_t{layer} << 48 | uint64_t{plane} << 44 | uint64_t{head} << 32 | position;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace baton::kvcache
