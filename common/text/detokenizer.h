#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/text/tokenizer.h"

namespace baton::text {

// The text of one choice, token by token. What it has given out is final: never half a character,
// and U+FFFD for bytes that no later token can make a character of, as a lossy decoder of the
// whole would write it. Holds back at most three bytes. A space that SentencePiece wrote in front
// stays: the text goes on behind a prompt. One thread at a time.
class StreamDetokenizer {
 public:
  explicit StreamDetokenizer(Tokenizer tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  // The text that `id` made certain; may be empty.
  std::string push(TokenId id);
  // What was held back. Afterwards it is as new.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string held_;  // the beginning of a character
};

// Finds stop strings in the text of one choice, and keeps back text that may yet become one.
// Holds at most the longest stop string; constant work a byte and stop string. One thread.
class StopMatcher {
 public:
  // Empty stop strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  struct Outcome {
    std::string text;      // to give out, without any part of the stop string
    bool stopped = false;  // a stop string is complete; `text` is the last there is
  };
  // The stop string whose last byte comes first wins, the longest where several end there: so
  // how the text is cut into calls does not matter. After a stop, everything is dropped.
  Outcome push(std::string_view text);
  // The text still held back: nothing more can come. Empty after a stop.
  std::string finish();

  bool stopped() const { return found_.has_value(); }
  // The stop string found; nullptr before.
  const std::string* stop() const { return found_ ? &automata_[*found_].text : nullptr; }

 private:
  // One stop string and how much of it the text so far ends in (Knuth, Morris, Pratt).
  struct Automaton {
    std::string text;
    std::vector<size_t> fallback;  // by matched length: the next shorter one that still fits
    size_t matched = 0;

    explicit Automaton(std::string stop);
    bool advance(char c);  // true where the whole of it is matched
  };

  std::vector<Automaton> automata_;
  std::string held_;
  std::optional<size_t> found_;  // index into automata_
};

}  // namespace baton::text
