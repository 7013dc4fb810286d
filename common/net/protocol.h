#pragma once

#include <cstdint>

// The version of worker.proto. Version N talks to N-1. 2: Retarget, SinkLost.
namespace baton::net {

inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 2;
// From this one on, KV can go to another decode worker.
inline constexpr uint32_t kProtocolRetarget = 2;

// Whether a peer that speaks [min, max] and this side have a version in common.
constexpr bool protocols_meet(uint32_t min, uint32_t max) {
  return min <= max && min <= kProtocolMax && max >= kProtocolMin;
}

}  // namespace baton::net
