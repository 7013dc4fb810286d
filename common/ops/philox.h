#pragma once

#include <array>
#include <cstdint>

namespace baton::ops {

// Philox4x32-10, a counter-based generator: the output is a pure function of key and counter, so
// nothing is stored and nothing depends on what else was drawn. (Salmon, Moraes, Dror, Shaw:
// Parallel Random Numbers: As Easy as 1, 2, 3. SC'11.)
using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter philox4x32_10(PhiloxCounter c, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

// The 64 random bits of one draw: of a request's seed, which of its n choices, the position of the
// token to be drawn, and which draw at that position.
constexpr uint64_t draw_bits(uint64_t seed, uint32_t choice, uint32_t position, uint32_t draw) {
  const PhiloxCounter r =
      philox4x32_10({position, choice, draw, 0},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return (uint64_t{r[1]} << 32) | r[0];
}

}  // namespace baton::ops
