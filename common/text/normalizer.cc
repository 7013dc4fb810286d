#include "common/text/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "common/text/utf8.h"

namespace baton::text {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

// Below U+0300 nothing changes in form C, below U+00A0 in none.
bool has_nothing_to_do(std::string_view text, UnicodeForm form) {
  const uint8_t first_lead = form == UnicodeForm::kNfc ? 0xcc : 0xc2;
  return std::ranges::all_of(text,
                             [first_lead](char c) { return static_cast<uint8_t>(c) < first_lead; });
}

CodePoints decomposed(std::string_view text, utf8proc_option_t options) {
  CodePoints out;
  out.reserve(text.size());
  utf8proc_int32_t buffer[64];  // the longest decomposition has 18
  int boundary = 0;
  while (!text.empty()) {
    const Utf8Step step = next_utf8(text);
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code), buffer,
                                               std::size(buffer), options, &boundary);
    out.insert(out.end(), buffer, buffer + std::clamp<utf8proc_ssize_t>(count, 0, 64));
    text.remove_prefix(step.bytes);
  }
  return out;
}

int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Marks in their canonical order. A stable sort a run: utf8proc's own exchange sort is quadratic,
// and a client chooses how long a run is.
void order_marks(CodePoints& codes) {
  for (auto at = codes.begin(); at != codes.end();) {
    at = std::find_if(at, codes.end(), [](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(at, codes.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(at, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
}

Error too_long(size_t before) {
  return error(Errc::kResourceExhausted,
               fmt::format("the tokenizer's normalizer makes {} bytes longer than {}", before,
                           Normalizer::max_bytes(before)));
}

// False where the text got longer than `max_bytes`.
bool replace_all(std::string& text, const Normalizer::Replace& step, size_t max_bytes) {
  std::string out;
  size_t from = 0;
  for (size_t at = text.find(step.from); at != std::string::npos; at = text.find(step.from, from)) {
    out.append(text, from, at - from);
    out += step.to;
    if (out.size() > max_bytes) return false;
    from = at + step.from.size();
  }
  if (from == 0) return true;
  out.append(text, from);
  text = std::move(out);
  return text.size() <= max_bytes;
}

}  // namespace

std::string normalize_unicode(std::string_view text, UnicodeForm form) {
  if (has_nothing_to_do(text, form)) return std::string(text);
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  CodePoints codes = decomposed(text, static_cast<utf8proc_option_t>(options));
  order_marks(codes);
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) {
    const auto size = utf8proc_normalize_utf32(
        codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    codes.resize(static_cast<size_t>(size));
  }
  std::string out;
  out.reserve(text.size());
  for (utf8proc_int32_t code : codes) append_utf8(out, static_cast<char32_t>(code));
  return out;
}

result<std::string> Normalizer::apply(std::string_view text) const {
  const size_t max = max_bytes(text.size());
  std::string out(text);
  for (const Step& step : steps_) {
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      out = normalize_unicode(out, *form);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!out.empty()) out.insert(0, prepend->text);
    } else if (!replace_all(out, std::get<Replace>(step), max)) {
      return too_long(text.size());
    }
    if (out.size() > max) return too_long(text.size());
  }
  return out;
}

}  // namespace baton::text
