#pragma once

#include <cstddef>
#include <cstdint>

// The version of worker.proto. Versions 1 to 4 are talked to. 2: Retarget, SinkLost. 3: a prompt
// may be computed while its decode worker has no room yet. 4: SetRole. 5: what a prompt took comes
// with its first tokens.
namespace baton::net {

inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 5;
// From this one on, KV can go to another decode worker.
inline constexpr uint32_t kProtocolRetarget = 2;
// From this one on, a decode worker has a waiting line, and prefill parks KV for it.
inline constexpr uint32_t kProtocolPark = 3;
// From this one on, a worker's role may be changed.
inline constexpr uint32_t kProtocolRoles = 4;
// From this one on, PrefillDone may come within Tokens.
inline constexpr uint32_t kProtocolDoneWithTokens = 5;
// Routers that a worker names in its Load.
inline constexpr size_t kMostNamedRouters = 64;

// Whether a peer that speaks [min, max] and this side have a version in common.
constexpr bool protocols_meet(uint32_t min, uint32_t max) {
  return min <= max && min <= kProtocolMax && max >= kProtocolMin;
}

}  // namespace baton::net
