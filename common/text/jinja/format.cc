// Values as text: str(), repr() and json.dumps() as Python writes them.
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "common/text/jinja/value.h"
#include "common/text/utf8.h"

namespace baton::text::jinja {
namespace {

void append_hex(std::string& out, const char* format, uint32_t code) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, format, code);
  out += buffer;
}

// Shortest digits that read back as `v`, in Python's choice of notation.
std::string float_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto scientific =
      std::to_chars(buffer, std::end(buffer), v, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(scientific - buffer));
  int exponent = 0;
  const size_t e = text.find('e');
  const char* digits = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  char fixed[64];
  const auto end = std::to_chars(fixed, std::end(fixed), v, std::chars_format::fixed).ptr;
  std::string out(fixed, static_cast<size_t>(end - fixed));
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

void append_quoted(std::string& out, const std::string& text) {
  const bool single = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = next_utf8(std::string_view(text).substr(at));
    const char32_t c = step.code;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += std::string_view(text).substr(at, step.bytes);
    } else {
      append_hex(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    at += step.bytes;
  }
  out += quote;
}

std::string scalar_repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_int()) return std::to_string(value.as_int());
  if (value.is_float()) return float_text(value.as_double());
  return "<" + std::string(value.type_name()) + ">";
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  status write(const Value& value) {
    if (out_.size() > Value::kMaxWeight) {
      return error(Errc::kResourceExhausted, "a value is too long as JSON");
    }
    if (value.is_string()) {
      string(value.as_string());
    } else if (value.is_list()) {
      return list(value.items());
    } else if (value.is_dict()) {
      return dict(value);
    } else {
      BATON_TRY(std::string text, scalar(value));
      out_ += text;
    }
    return {};
  }
  std::string take() { return std::move(out_); }

 private:
  static result<std::string> scalar(const Value& value) {
    if (value.is_none()) return std::string("null");
    if (value.is_bool()) return std::string(value.as_bool() ? "true" : "false");
    if (value.is_int()) return std::to_string(value.as_int());
    if (value.is_float()) {
      const double v = value.as_double();
      if (std::isfinite(v)) return float_text(v);
      return std::string(std::isnan(v) ? "NaN" : v < 0 ? "-Infinity" : "Infinity");
    }
    if (value.is_undefined()) return error(Errc::kInvalidArgument, value.undefined_reason());
    return error(Errc::kInvalidArgument,
                 "JSON has no form for a value of type " + std::string(value.type_name()));
  }

  void string(std::string_view text) {
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const Utf8Step step = next_utf8(text.substr(at));
      character(step.code, text.substr(at, step.bytes));
      at += step.bytes;
    }
    out_ += '"';
  }

  void character(char32_t c, std::string_view bytes) {
    static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
    if (const size_t i = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
        i != std::string_view::npos) {
      out_ += '\\';
      out_ += kTo[i];
    } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7e)) {
      if (c >= 0x10000) {
        append_hex(out_, "\\u%04x", 0xd800 + ((c - 0x10000) >> 10));
        c = 0xdc00 + ((c - 0x10000) & 0x3ff);
      }
      append_hex(out_, "\\u%04x", c);
    } else {
      out_ += bytes;
    }
  }

  status list(const std::vector<Value>& items) {
    return container('[', ']', items, [this](const Value& item) { return write(item); });
  }

  status dict(const Value& value) {
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, item] : value.entries()) {
      if (key.is_string()) {
        entries.emplace_back(key.as_string(), &item);
      } else {
        BATON_TRY(std::string text, scalar(key));
        entries.emplace_back(std::move(text), &item);
      }
    }
    if (style_.sort_keys)
      std::ranges::stable_sort(entries, {}, &decltype(entries)::value_type::first);
    return container('{', '}', entries, [this](const auto& entry) -> status {
      string(entry.first);
      out_ += style_.key_separator;
      return write(*entry.second);
    });
  }

  template <class Items, class WriteOne>
  status container(char open, char close, const Items& items, WriteOne write_one) {
    out_ += open;
    if (items.empty()) {
      out_ += close;
      return {};
    }
    ++level_;
    bool first = true;
    for (const auto& item : items) {
      if (!first) separator();
      if (first) new_line();
      first = false;
      BATON_CHECK_OK(write_one(item));
    }
    --level_;
    new_line();
    out_ += close;
    return {};
  }

  void separator() {
    out_ += style_.item_separator;
    new_line();
  }
  void new_line() {
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(style_.indent) * level_, ' ');
  }

  const JsonStyle& style_;
  std::string out_;
  size_t level_ = 0;
};

// Appends: made of texts of its parts, a text would be copied once a level.
void append_repr(std::string& out, const Value& value);

template <class Items, class Append>
void append_joined(std::string& out, const Items& items, Append append) {
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ", ";
    first = false;
    append(item);
  }
}

void append_repr(std::string& out, const Value& value) {
  if (value.is_string()) {
    append_quoted(out, value.as_string());
  } else if (value.is_list()) {
    const bool tuple = value.is_tuple();
    out += tuple ? '(' : '[';
    append_joined(out, value.items(), [&out](const Value& item) { append_repr(out, item); });
    if (tuple && value.items().size() == 1) out += ',';
    out += tuple ? ')' : ']';
  } else if (value.is_dict()) {
    out += '{';
    append_joined(out, value.entries(), [&out](const auto& entry) {
      append_repr(out, entry.first);
      out += ": ";
      append_repr(out, entry.second);
    });
    out += '}';
  } else {
    out += scalar_repr(value);
  }
}

}  // namespace

std::string repr(const Value& value) {
  std::string out;
  append_repr(out, value);
  return out;
}

std::string to_text(const Value& value) {
  if (value.is_string()) return value.as_string();
  return value.is_undefined() ? "" : repr(value);
}

result<std::string> to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  BATON_CHECK_OK(writer.write(value));
  return writer.take();
}

}  // namespace baton::text::jinja
