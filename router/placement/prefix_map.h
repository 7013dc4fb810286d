#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/ids.h"

namespace baton::router {

// Which workers hold which beginnings of prompts, as far as this router sent them there: a guess,
// that saves work where it is right and costs nothing but that where it is wrong. A table of fixed
// size, eight entries a row; in a full row the one that was not used for longest gives way.
// Prompts are told apart by a fast keyed hash of whole units of kUnit tokens behind `salt`: here a
// collision costs time, never an answer (what a worker really shares, it compares by SHA-256).
class PrefixMap {
 public:
  static constexpr uint32_t kUnit = 64;  // tokens

  // `entries`: rounded up to a power of two, 16 bytes each. `key`: drawn at start-up.
  explicit PrefixMap(size_t entries = size_t{1} << 18, uint64_t key = 0);

  // The hash of each whole unit's end, chained.
  void hash(std::string_view salt, std::span<const TokenId> tokens,
            std::vector<uint64_t>& units) const;

  struct Match {
    WorkerId worker;
    uint32_t tokens = 0;
  };
  // Who holds how much of it, in no order; replaces what is in `matches`.
  void find(std::span<const uint64_t> units, std::vector<Match>& matches) const;
  // This worker will hold all of it.
  void add(std::span<const uint64_t> units, WorkerId worker);
  void forget(WorkerId worker);

 private:
  struct Entry {
    uint64_t key = 0;     // of prefix and worker's tag; 0: empty
    uint32_t worker = 0;  // index in workers_
    uint32_t used = 0;
  };
  static constexpr size_t kWays = 8;

  std::span<Entry> row(uint64_t unit);
  std::span<const Entry> row(uint64_t unit) const;
  uint32_t index_of(WorkerId worker);

  std::vector<Entry> entries_;
  std::vector<WorkerId> workers_;  // an id of 0: free to be taken again
  uint64_t key_;
  uint32_t clock_ = 0;
};

}  // namespace baton::router
