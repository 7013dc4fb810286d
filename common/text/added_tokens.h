#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/text/normalizer.h"
#include "common/text/regex.h"

namespace baton::text {

// A token that is found in the text itself, before it is cut and merged.
struct AddedToken {
  TokenId id = 0;
  std::string text;          // not empty
  bool special = false;      // a control token, not text
  bool normalized = false;   // looked for in normalized text, itself normalized
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
};

// Texts by their prefixes.
class TokenTrie {
 public:
  void add(std::string_view text, uint32_t value);
  struct Hit {
    uint32_t value = 0;
    size_t bytes = 0;
  };
  // The longest text that begins at `at`.
  std::optional<Hit> longest(std::string_view text, size_t at) const;

 private:
  std::array<bool, 256> starts_{};
  std::unordered_map<uint64_t, uint32_t> edges_;                  // (node, byte) → node
  std::vector<std::optional<uint32_t>> values_ = {std::nullopt};  // by node; the root is 0
};

// Cuts text at added tokens: those not normalized in the text as it comes, the others after the
// normalizer. Where several match, the leftmost, then the longest. Immutable.
class AddedTokens {
 public:
  // A part of a text: a token, or text between tokens.
  struct Part {
    std::optional<TokenId> token;
    std::string_view text;
  };

  static result<AddedTokens> create(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  // The parts of `text`, in order, no text part empty. Special tokens count only if asked for;
  // where they do not, their text is passed over as a whole. `normalized` says which of the two
  // sets.
  status split(std::string_view text, bool normalized, bool special, Regex::Scratch& scratch,
               std::vector<Part>& parts) const;

  // `text` with `guard` behind the first character of each special token that begins in it.
  std::string break_special(std::string_view text, std::string_view guard) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  explicit AddedTokens(Regex word) : word_(std::move(word)) {}
  result<bool> stands_alone(std::string_view text, size_t begin, size_t end,
                            Regex::Scratch& scratch) const;

  std::vector<AddedToken> tokens_;
  TokenTrie raw_, normalized_;  // values are indices into tokens_
  Regex word_;                  // one word character
};

}  // namespace baton::text
