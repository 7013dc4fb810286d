#pragma once

#include <cstdint>

namespace baton::engine {

// Both schedulers of a worker put sequences into one batch; StepSequence::client says whose each is
// and which of its owner's entries.
enum class Owner : uint8_t { kPrefill = 1, kDecode = 2 };

constexpr uint64_t client_mark(Owner owner, uint32_t entry) {
  return uint64_t{static_cast<uint8_t>(owner)} << 32 | entry;
}
constexpr bool belongs_to(uint64_t mark, Owner owner) {
  return mark >> 32 == static_cast<uint8_t>(owner);
}
constexpr uint32_t entry_of(uint64_t mark) { return static_cast<uint32_t>(mark); }

}  // namespace baton::engine
