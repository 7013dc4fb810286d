#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/text/regex.h"

namespace baton::text {

// What becomes of a match when text is split at it.
enum class SplitBehavior : uint8_t {
  kIsolated,            // a piece of its own
  kRemoved,             // gone
  kMergedWithPrevious,  // the end of the piece before
  kMergedWithNext,      // the beginning of the piece after
  kContiguous,          // neighbouring matches are one piece
};

// GPT-2's pattern, which ByteLevel splits by unless told not to.
std::string_view gpt2_pattern();

// Cuts text into the pieces that are merged each for itself.
class PreTokenizer {
 public:
  struct Split {
    Regex regex;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;  // what does not match is the match
  };
  enum class Prefix : uint8_t { kNever, kFirst, kAlways };
  // Written before the text: `text`, unless the text begins with it. Only at the front of the whole
  // input for kFirst.
  struct Prepend {
    Prefix when = Prefix::kNever;
    std::string text;
  };

  std::vector<Split> splits;  // each cuts the pieces of the one before
  std::string space;          // what every U+0020 becomes first; empty: stays
  Prepend prepend;

  // The text to cut: `text`, changed as `space` and `prepend` say.
  std::string prepare(std::string_view text, bool at_front) const;
  // Pieces of `text`, none empty, in order; views into it. Regex's errors.
  status split(std::string_view text, Regex::Scratch& scratch,
               std::vector<std::string_view>& pieces) const;
};

}  // namespace baton::text
