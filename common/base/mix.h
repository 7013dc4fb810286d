#pragma once

#include <cstdint>

namespace baton {

inline constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;

// One step of splitmix64 (Steele et al. 2014): a bijection in which each bit of x reaches all.
constexpr uint64_t mix(uint64_t x) {
  x += kGolden;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace baton
