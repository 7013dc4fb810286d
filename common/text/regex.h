#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

// PCRE2's types, so that its header stays out of ours.
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace baton::text {

// A pattern as the tokenizer files write it (Oniguruma's syntax and Unicode classes), compiled once
// by PCRE2 with its JIT. Immutable: any thread may match, each with a scratch of its own.
class Regex {
 public:
  struct Span {
    size_t begin = 0, end = 0;
  };

  // What matching needs besides the pattern; fits every pattern. One thread at a time.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    pcre2_real_match_data_8* data_;
    pcre2_real_match_context_8* context_;
  };

  // kUnsupported for syntax that means something else here, or that PCRE2 refuses.
  static result<Regex> compile(std::string_view pattern);
  // Matches `text` as it stands.
  static result<Regex> literal(std::string_view text);

  // The first match at or after `from`, nothing where there is none. `text` is well-formed UTF-8,
  // `from` begins a character. kResourceExhausted if the search takes more steps than allowed:
  // no text can make one hang.
  result<std::optional<Span>> find(std::string_view text, size_t from, Scratch& scratch) const;

  const std::string& pattern() const { return pattern_; }  // as given

 private:
  Regex() = default;
  static result<Regex> compile(std::string_view pattern, const std::string& translated);

  std::string pattern_;
  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace baton::text
