#include "common/text/jinja/strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "common/text/utf8.h"

namespace baton::text::jinja {
namespace {

constexpr size_t npos = std::string_view::npos;

// Calls fn(code, bytes) for each character.
template <class Fn>
void each(std::string_view text, Fn fn) {
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    fn(step.code, text.substr(0, step.bytes));
    text.remove_prefix(step.bytes);
  }
}

char32_t to_upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_title(char32_t c) {
  return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

std::string_view last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) --at;
  return text.substr(at);
}

bool to_strip(std::string_view character, std::optional<std::string_view> chars) {
  if (chars) return chars->find(character) != npos;
  return is_python_space(next_utf8(character).code);
}

bool is_cased(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
      return true;
    default:
      return false;
  }
}

std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> out;
  text = strip(text, std::nullopt, Side::kLeft);
  while (!text.empty()) {
    if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
      out.push_back(strip(text, std::nullopt, Side::kRight));
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Utf8Step step = next_utf8(text.substr(end));
      if (is_python_space(step.code)) break;
      end += step.bytes;
    }
    out.push_back(text.substr(0, end));
    text = strip(text.substr(end), std::nullopt, Side::kLeft);
  }
  return out;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

}  // namespace

size_t length(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  each(text, [&out](char32_t, std::string_view bytes) { out.push_back(bytes); });
  return out;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side) {
  while (side != Side::kRight && !text.empty()) {
    const std::string_view first = text.substr(0, utf8_length(text[0]));
    if (!to_strip(first, chars)) break;
    text.remove_prefix(first.size());
  }
  while (side != Side::kLeft && !text.empty()) {
    const std::string_view last = last_character(text);
    if (!to_strip(last, chars)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t max_splits) {
  if (!separator) return split_at_spaces(text, max_splits);
  std::vector<std::string_view> out;
  while (max_splits < 0 || static_cast<int64_t>(out.size()) < max_splits) {
    const size_t at = find_text(text, *separator);
    if (at == npos) break;
    out.push_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  out.push_back(text);
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    size_t end = 0, next = text.size();
    while (end < text.size()) {
      const Utf8Step step = next_utf8(text.substr(end));
      if (is_line_end(step.code)) {
        next = end + step.bytes;
        if (step.code == '\r' && next < text.size() && text[next] == '\n') ++next;
        break;
      }
      end += step.bytes;
    }
    out.push_back(text.substr(0, end));
    text.remove_prefix(next);
  }
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  each(text, [&out](char32_t c, std::string_view) { append_utf8(out, to_upper(c)); });
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  each(text, [&out](char32_t c, std::string_view) { append_utf8(out, to_lower(c)); });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  each(text, [&](char32_t c, std::string_view) {
    append_utf8(out, out.empty() ? to_title(c) : to_lower(c));
  });
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  each(text, [&](char32_t c, std::string_view) {
    append_utf8(out, in_word ? to_lower(c) : to_title(c));
    in_word = is_cased(c);
  });
  return out;
}

std::string title_words(std::string_view text) {
  std::string out;
  bool in_word = false;
  each(text, [&](char32_t c, std::string_view) {
    append_utf8(out, in_word ? to_lower(c) : to_upper(c));
    in_word = !is_python_space(c) &&
              (c >= 0x80 || std::string_view("-({[<").find(static_cast<char>(c)) == npos);
  });
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t max_count) {
  std::string out;
  int64_t left = max_count < 0 ? INT64_MAX : max_count;
  if (from.empty()) {  // before each character and at the end
    each(text, [&](char32_t, std::string_view bytes) {
      if (left-- > 0) out += to;
      out += bytes;
    });
    if (left > 0) out += to;
    return out;
  }
  while (left-- > 0) {
    const size_t at = find_text(text, from);
    if (at == npos) break;
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  return out += text;
}

size_t replaced_bytes(std::string_view text, std::string_view from, std::string_view to) {
  return text.size() + count(text, from) * to.size();
}

size_t find_text(std::string_view text, std::string_view part) {
  if (part.empty()) return 0;
  const void* at = memmem(text.data(), text.size(), part.data(), part.size());
  if (at == nullptr) return npos;
  return static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

size_t count(std::string_view text, std::string_view part) {
  if (part.empty()) return length(text) + 1;
  size_t found = 0;
  for (size_t at = find_text(text, part); at != npos; at = find_text(text, part)) {
    ++found;
    text.remove_prefix(at + part.size());
  }
  return found;
}

}  // namespace baton::text::jinja
