#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace baton {

// A number that means one thing. None converts to another or to a plain integer.
template <class Tag, class Rep>
struct StrongId {
  Rep value{};

  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep v) : value(v) {}
  friend constexpr auto operator<=>(const StrongId&, const StrongId&) = default;
};

using RequestId = StrongId<struct RequestIdTag, uint64_t>;    // unique per router life
using BlockId = StrongId<struct BlockIdTag, uint32_t>;        // index into one worker's cache
using WorkerId = StrongId<struct WorkerIdTag, uint64_t>;      // a worker process; new at each start
using RouterId = StrongId<struct RouterIdTag, uint64_t>;      // a router process; new at each start
using Generation = StrongId<struct GenerationTag, uint64_t>;  // grows; fences what came before
using SlotId = StrongId<struct SlotIdTag, uint32_t>;          // a sequence's place in the engine

using TokenId = int32_t;

// One attempt to serve one request, unique within a worker. A higher generation of the same request
// fences what the lower ones left.
struct RequestKey {
  RouterId router;
  RequestId request;
  Generation generation;
  friend constexpr auto operator<=>(const RequestKey&, const RequestKey&) = default;
};

}  // namespace baton

template <class Tag, class Rep>
struct std::hash<baton::StrongId<Tag, Rep>> {
  size_t operator()(const baton::StrongId<Tag, Rep>& id) const noexcept {
    return std::hash<Rep>{}(id.value);
  }
};
