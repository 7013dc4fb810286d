#pragma once

#include <cstdint>

// The version of worker.proto. Versions 1 and 2 are talked to. 2: Retarget, SinkLost. 3: a prompt
// may be computed while its decode worker has no room yet.
namespace baton::net {

inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 3;
// From this one on, KV can go to another decode worker.
inline constexpr uint32_t kProtocolRetarget = 2;
// From this one on, a decode worker has a waiting line, and prefill parks KV for it.
inline constexpr uint32_t kProtocolPark = 3;

// Whether a peer that speaks [min, max] and this side have a version in common.
constexpr bool protocols_meet(uint32_t min, uint32_t max) {
  return min <= max && min <= kProtocolMax && max >= kProtocolMin;
}

}  // namespace baton::net
