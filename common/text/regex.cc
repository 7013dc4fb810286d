#include "common/text/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/formats/utf8.h"

namespace baton::text {
namespace {

// Enough for any of the known patterns on megabytes of text; a fraction of a second at most.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 256
                                   << 10;  // of the interpreter, if the JIT's stack is too small

Error unsupported(std::string_view pattern, std::string_view why) {
  return error(Errc::kUnsupported,
               fmt::format("the pattern '{}' {}", formats::printable(pattern), why));
}

// Where Oniguruma and PCRE2 read the same letters differently, PCRE2's way to say it.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  result<std::string> run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        BATON_CHECK_OK(escape());
      } else {
        BATON_CHECK_OK(bracket(c));
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  // Classes have one level here: Oniguruma's nested ones and '&&' mean nothing to PCRE2.
  status bracket(char c) {
    if (in_class_ && (c == '[' || pattern_.substr(at_).starts_with("&&"))) {
      return unsupported(pattern_, "has a class within a class, which is not supported");
    }
    if (c == '[') {
      in_class_ = true;
      // ']' right after the '[' or '[^' is a member.
      const size_t first = at_ + (pattern_.substr(at_ + 1).starts_with('^') ? 2 : 1);
      if (pattern_.substr(first).starts_with(']')) {
        return unsupported(pattern_, "has an empty class, which is not supported");
      }
    } else if (c == ']') {
      in_class_ = false;
    }
    return {};
  }

  status escape() {
    if (at_ + 1 == pattern_.size()) return unsupported(pattern_, "ends in a backslash");
    const char c = pattern_[at_ + 1];
    if (c == 's' || c == 'S') {
      // PCRE2's own \s has U+180E too.
      return put(c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
    }
    if (c == 'w' || (c == 'W' && !in_class_)) {
      constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
      return put(in_class_ ? std::string(kWord)
                           : fmt::format("[{}{}]", c == 'w' ? "" : "^", kWord));
    }
    if (c == 'u') {
      const std::string_view digits = pattern_.substr(at_ + 2, 4);
      if (digits.size() < 4 ||
          !std::ranges::all_of(digits, [](unsigned char d) { return std::isxdigit(d) != 0; })) {
        return unsupported(pattern_, "has a \\u without four digits");
      }
      out_ += fmt::format("\\x{{{}}}", digits);
      at_ += 6;
      return {};
    }
    static constexpr std::string_view kOtherMeaning = "hHWRXKGMCyYOg";
    if (kOtherMeaning.find(c) != std::string_view::npos) {
      return unsupported(pattern_, fmt::format("has \\{}, which is not supported", c));
    }
    out_ += pattern_.substr(at_, 2);
    at_ += 2;
    return {};
  }

  status put(std::string_view text) {
    out_ += text;
    at_ += 2;
    return {};
  }

  const std::string_view pattern_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

Regex::Scratch::Scratch()
    : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  if (data_ == nullptr || context_ == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context_, kMatchLimit);
  pcre2_set_heap_limit(context_, kHeapLimitKib);
}

Regex::Scratch::~Scratch() {
  pcre2_match_data_free(data_);
  pcre2_match_context_free(context_);
}

result<Regex> Regex::compile(std::string_view pattern) {
  BATON_TRY(const std::string translated, Translator(pattern).run());
  return compile(pattern, translated);
}

result<Regex> Regex::literal(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && std::isalnum(static_cast<unsigned char>(c)) == 0) {
      escaped += '\\';
    }
    escaped += c;
  }
  return compile(text, escaped);
}

result<Regex> Regex::compile(std::string_view pattern, const std::string& translated) {
  int code = 0;
  size_t at = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP, &code, &at, nullptr);
  if (compiled == nullptr) {
    return unsupported(pattern, fmt::format("does not compile: {} at {}", pcre2_message(code), at));
  }
  Regex out;
  out.pattern_ = pattern;
  out.code_ = {compiled, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); }};
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // without a JIT it is slower, not wrong
  return out;
}

result<std::optional<Regex::Span>> Regex::find(std::string_view text, size_t from,
                                               Scratch& scratch) const {
  const auto match = [&](uint32_t more_options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | more_options, scratch.data_, scratch.context_);
  };
  int rc = match(0);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
  if (rc == PCRE2_ERROR_NOMATCH) return std::optional<Span>();
  if (rc < 0) {
    return error(Errc::kResourceExhausted,
                 fmt::format("the text cannot be split by '{}': {}", formats::printable(pattern_),
                             pcre2_message(rc)));
  }
  const size_t* bounds = pcre2_get_ovector_pointer(scratch.data_);
  return std::optional<Span>(Span{bounds[0], bounds[1]});
}

}  // namespace baton::text
