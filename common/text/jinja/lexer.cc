#include "common/text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "common/text/jinja/strings.h"
#include "common/text/utf8.h"

namespace baton::text::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr size_t kMaxNameBytes = 256;  // names are compared with others at each use

bool is_name(char c) {
  return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Line ends become \n, and one at the end of the source is dropped.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    const bool cr = source[i] == '\r';
    out += cr ? '\n' : source[i];
    if (cr && i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const size_t open = find_open();
      if (open == npos) {
        push(TokenKind::kText, source_.substr(at_));
        break;
      }
      BATON_CHECK_OK(tag(open));
    }
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Error bad(std::string reason) const {
    return error(Errc::kDataCorrupt, "line " + std::to_string(line_) + ": " + std::move(reason));
  }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool looking_at(std::string_view what) const { return rest().starts_with(what); }

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::ranges::count(rest().substr(0, bytes), '\n'));
    at_ += bytes;
  }
  size_t space_bytes() const {
    return rest().size() - strip(rest(), std::nullopt, Side::kLeft).size();
  }
  void skip_space() { advance(space_bytes()); }
  void push(TokenKind kind, std::string text) {
    if (kind == TokenKind::kText && text.empty()) return;
    tokens_.push_back({kind, std::move(text), line_});
  }

  size_t find_open() const {
    for (size_t i = source_.find('{', at_); i != npos; i = source_.find('{', i + 1)) {
      if (i + 1 == source_.size()) return npos;
      const char next = source_[i + 1];
      if (next == '{' || next == '%' || next == '#') return i;
    }
    return npos;
  }

  // From at_, the text up to `open` and the tag that begins there.
  status tag(size_t open) {
    const char type = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    text_before(open, sign, /*may_strip_line=*/type != '{');
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (type == '#') return comment();
    if (type == '%' && at_raw()) return raw();
    push(type == '{' ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    return expression(type == '{');
  }

  // {%- takes all white space before it; otherwise a tag alone at the start of its line takes the
  // line's indentation (lstrip_blocks), unless it says {%+.
  void text_before(size_t open, char sign, bool may_strip_line) {
    std::string_view text = std::string_view(source_).substr(at_, open - at_);
    if (sign == '-') {
      text = strip(text, std::nullopt, Side::kRight);
    } else if (sign != '+' && may_strip_line) {
      const size_t line_start = text.rfind('\n') + 1;  // 0 where there is none
      const bool starts_line = line_start > 0 || at_ == 0 || source_[at_ - 1] == '\n';
      if (starts_line && strip(text.substr(line_start), std::nullopt, Side::kLeft).empty()) {
        text = text.substr(0, line_start);
      }
    }
    push(TokenKind::kText, std::string(text));
    advance(open - at_);
  }

  // -%} takes all white space after it, %} one line end (trim_blocks), +%} nothing.
  // False if `close` ("%}", "#}") does not stand here.
  bool block_close(std::string_view close) {
    const char sign = at_ < source_.size() ? source_[at_] : ' ';
    const size_t signs = sign == '-' || sign == '+' ? 1 : 0;
    if (!rest().substr(signs).starts_with(close)) return false;
    advance(signs + close.size());
    if (sign == '-') skip_space();
    if (signs == 0 && looking_at("\n")) advance(1);
    return true;
  }

  status comment() {
    const size_t end = source_.find("#}", at_);
    if (end == npos) return bad("a comment does not end");
    const bool sign = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    advance(end - at_ - (sign ? 1 : 0));
    block_close("#}");
    return {};
  }

  bool at_raw() const {
    std::string_view text = rest();
    const auto skip = [&text] {
      while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    };
    skip();
    if (!text.starts_with("raw")) return false;
    text.remove_prefix(3);
    skip();
    return text.starts_with("%}") || text.starts_with("-%}");
  }

  status raw() {
    advance(source_.find("%}", at_) + 2 - at_);
    if (source_[at_ - 3] == '-') skip_space();
    for (size_t i = source_.find("{%", at_); i != npos; i = source_.find("{%", i + 1)) {
      size_t end = i + 2;
      const char sign = end < source_.size() ? source_[end] : ' ';
      if (sign == '-' || sign == '+') ++end;
      while (end < source_.size() && is_space(source_[end])) ++end;
      if (source_.compare(end, 6, "endraw") != 0) continue;
      end += 6;
      while (end < source_.size() && is_space(source_[end])) ++end;
      const std::string_view tail = std::string_view(source_).substr(end);
      if (!tail.starts_with("%}") && !tail.starts_with("-%}") && !tail.starts_with("+%}")) continue;
      text_before(i, sign, /*may_strip_line=*/true);
      advance(end - at_);
      block_close("%}");
      return {};
    }
    return bad("a raw block does not end");
  }

  // The tokens inside {{ }} or {% %}. The end does not count inside brackets: {{ {'a': {}} }}.
  status expression(bool output) {
    std::string open_brackets;
    while (true) {
      if (open_brackets.empty() && expression_end(output)) return {};
      if (at_ == source_.size()) return bad("a tag does not end");
      const char c = source_[at_];
      if (const size_t space = space_bytes(); space > 0) {
        advance(space);
      } else if (is_digit(c)) {
        BATON_CHECK_OK(number());
      } else if (is_name(c)) {
        size_t n = 1;
        while (at_ + n < source_.size() && is_name(source_[at_ + n])) ++n;
        if (n > kMaxNameBytes) return bad("a name is too long");
        push(TokenKind::kName, source_.substr(at_, n));
        advance(n);
      } else if (c == '\'' || c == '"') {
        BATON_CHECK_OK(string(c));
      } else {
        BATON_CHECK_OK(punctuation(open_brackets));
      }
    }
  }

  bool expression_end(bool output) {
    if (!output) {
      // The token's line is the tag's, not where trimmed white space ends.
      const int line = line_;
      if (!block_close("%}")) return false;
      tokens_.push_back({TokenKind::kBlockEnd, "", line});
      return true;
    }
    const bool minus = looking_at("-}}");
    if (!minus && !looking_at("}}")) return false;
    push(TokenKind::kOutputEnd, "");
    advance(minus ? 3 : 2);
    if (minus) skip_space();
    return true;
  }

  status punctuation(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 27> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
        "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";", "!"};
    const auto* op = std::ranges::find_if(kOperators, [this](auto o) { return looking_at(o); });
    if (op == kOperators.end() || *op == "!") {
      return bad("unexpected character '" + std::string(rest().substr(0, utf8_length(rest()[0]))) +
                 "'");
    }
    const char c = (*op)[0];
    if (c == '(' || c == '[' || c == '{') open_brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open_brackets.empty() || open_brackets.back() != c) {
        return bad("unexpected '" + std::string(*op) + "'");
      }
      open_brackets.pop_back();
    }
    push(TokenKind::kOperator, std::string(*op));
    advance(op->size());
    return {};
  }

  status number() {
    size_t n = 0;
    bool is_float = false;
    std::string digits;
    const auto take_digits = [&] {
      const auto at = [&](size_t i) { return at_ + i < source_.size() ? source_[at_ + i] : ' '; };
      while (is_digit(at(n)) || (at(n) == '_' && n > 0 && is_digit(at(n + 1)))) {
        if (at(n) != '_') digits += at(n);
        ++n;
      }
      return at(n);
    };
    const auto peek = [&](size_t i) { return at_ + i < source_.size() ? source_[at_ + i] : ' '; };
    char next = take_digits();
    const bool after_dot = !tokens_.empty() && tokens_.back().text == ".";
    if (next == '.' && is_digit(peek(n + 1)) && !after_dot) {
      is_float = true;
      digits += '.';
      ++n;
      next = take_digits();
    }
    const size_t sign = peek(n + 1) == '+' || peek(n + 1) == '-' ? 1 : 0;
    if ((next == 'e' || next == 'E') && is_digit(peek(n + 1 + sign)) && !after_dot) {
      is_float = true;
      digits += source_.substr(at_ + n, 1 + sign);
      n += 1 + sign;
      take_digits();
    }
    if (is_name(peek(n))) return bad("a number ends in letters");
    push(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(digits));
    advance(n);
    return {};
  }

  status string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return bad("a string does not end");
    BATON_TRY(std::string text, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    push(TokenKind::kString, std::move(text));
    advance(end + 1 - at_);
    return {};
  }

  result<std::string> unescape(std::string_view in) const {
    std::string out;
    for (size_t i = 0; i < in.size();) {
      if (in[i] != '\\' || i + 1 == in.size()) {
        out += in[i++];
        continue;
      }
      BATON_TRY(const size_t used, escape(in.substr(i), out));
      i += used;
    }
    return out;
  }

  // Python's escapes. `in` begins with a backslash and has at least one character more.
  result<size_t> escape(std::string_view in, std::string& out) const {
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    const char c = in[1];
    if (c == '\n') return size_t{2};  // a line that goes on
    if (const size_t i = kFrom.find(c); i != npos) {
      out += kTo[i];
      return size_t{2};
    }
    size_t begin = 2, digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    int base = 16;
    if (c >= '0' && c <= '7') {
      begin = 1;
      base = 8;
      while (digits < 3 && begin + digits < in.size() && in[begin + digits] >= '0' &&
             in[begin + digits] <= '7') {
        ++digits;
      }
    }
    if (c == 'N') return bad("\\N{...} in a string is not supported");
    if (digits == 0) {  // not an escape: both stay
      out += '\\';
      return size_t{1};
    }
    uint32_t code = 0;
    const std::string_view number = in.substr(begin, digits);
    const auto [end, failure] =
        std::from_chars(number.data(), number.data() + number.size(), code, base);
    if (number.size() < digits || failure != std::errc() || end != number.data() + digits ||
        code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      return bad("an escape in a string names no character");
    }
    append_utf8(out, code);
    return begin + digits;
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

result<std::vector<Token>> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace baton::text::jinja
