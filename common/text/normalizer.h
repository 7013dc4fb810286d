#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/result.h"

namespace baton::text {

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// `text`, well-formed UTF-8, in that form. Linear but for sorting runs of combining marks.
std::string normalize_unicode(std::string_view text, UnicodeForm form);

// What a tokenizer does to text before anything else: a list of steps, applied in order.
class Normalizer {
 public:
  struct Prepend {  // to text that is not empty
    std::string text;
  };
  struct Replace {
    std::string from, to;  // `from` is not empty
  };
  using Step = std::variant<UnicodeForm, Prepend, Replace>;

  void add(const Step& step) { steps_.push_back(step); }
  bool empty() const { return steps_.empty(); }
  const std::vector<Step>& steps() const { return steps_; }
  // kResourceExhausted where the steps make it longer than max_bytes(): more than any script needs,
  // but a list of replacements can grow a text without end.
  result<std::string> apply(std::string_view text) const;
  static size_t max_bytes(size_t before) { return 16 * before + 64; }

 private:
  std::vector<Step> steps_;
};

}  // namespace baton::text
