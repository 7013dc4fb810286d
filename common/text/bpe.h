#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"

namespace baton::text {

// Two neighbouring tokens that become one. The lowest rank goes first, the leftmost among equals.
struct Merge {
  TokenId left = 0, right = 0, merged = 0;
  uint32_t rank = 0;
};

// Byte-pair encoding of one piece of text. Immutable and thread-safe.
class Bpe {
 public:
  struct Options {
    // A piece starts out as its bytes; otherwise as its characters.
    bool byte_level = true;
    // A character that is no token becomes its bytes' tokens, if each byte has one.
    bool byte_fallback = false;
    // A piece that is a token is that token, whatever the merges would make of it.
    bool ignore_merges = false;
    // What stands for a character or byte without token; without it, such are dropped.
    std::optional<TokenId> unknown;
    bool fuse_unknown = false;  // neighbouring ones are one token
  };

  // `texts` by id: bytes of the token where byte_level, else its characters; empty for ids that
  // merging can not make. `byte_tokens` by byte, -1 where there is none: used by byte_fallback.
  // Of two merges of one pair, the later counts.
  Bpe(Options options, std::span<const std::string_view> texts,
      const std::array<TokenId, 256>& byte_tokens, std::span<const Merge> merges);

  // Memory of one encoding, to be used again for the next. One thread at a time.
  struct Scratch {
    struct Symbol {
      TokenId id;
      int32_t previous, next;  // -1: none
      bool alive;
    };
    struct Candidate {
      uint64_t order;  // rank, then position
      TokenId merged;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Appends the tokens of `piece`, which is shorter than 2 GiB. O(n log n) in its length.
  void encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& out) const;

 private:
  struct Found {
    uint32_t rank;
    TokenId merged;
  };
  // An open-addressed table from a pair of ids: one cache line a look-up.
  struct Slot {
    uint64_t pair = kEmpty;
    Found found{};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  void insert(const Merge& merge);
  const Found* find(TokenId left, TokenId right) const;
  size_t slot_of(uint64_t pair) const;
  void start(std::string_view piece, std::vector<Scratch::Symbol>& symbols) const;
  void push(Scratch& scratch, int32_t left, int32_t right) const;

  Options options_;
  std::array<TokenId, 256> bytes_{};  // first tokens of a piece, or of byte_fallback
  std::unordered_map<std::string_view, TokenId> ids_;
  std::vector<Slot> table_;  // a power of two, at most half full
};

}  // namespace baton::text
