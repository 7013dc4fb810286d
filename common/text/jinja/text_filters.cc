// Filters on texts, numbers and single values.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "common/formats/utf8.h"
#include "common/text/jinja/builtins.h"
#include "common/text/jinja/methods.h"
#include "common/text/jinja/strings.h"

namespace baton::text::jinja {
namespace {

template <std::string (*convert)(std::string_view)>
result<Value> convert_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("a text filter", arguments, {}));
  BATON_TRY(const std::string text, text_of(run.budget(), subject));
  BATON_CHECK_OK(run.budget().step(text.size() / 16));
  return make_text(run.budget(), convert(text));
}

result<Value> trim_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("trim", arguments, {"chars"}));
  BATON_TRY(const std::string text, text_of(run.budget(), subject));
  return strip_value(run, text, given[0], Side::kBoth);
}

result<Value> string_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("string", arguments, {}));
  if (subject.is_string()) return subject;
  BATON_TRY(std::string text, text_of(run.budget(), subject));
  return make_text(run.budget(), std::move(text));
}

result<Value> escape_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("escape", arguments, {}));
  BATON_TRY(const std::string text, text_of(run.budget(), subject));
  BATON_CHECK_OK(run.budget().step(text.size() / 16));
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return make_text(run.budget(), std::move(out));
}

result<Value> replace_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("replace", arguments, {"old", "new", "count"}));
  BATON_TRY(const std::string text, text_of(run.budget(), subject));
  BATON_TRY(const std::string from, text_of(run.budget(), given[0]));
  BATON_TRY(const std::string to, text_of(run.budget(), given[1]));
  BATON_CHECK_OK(run.budget().step(text.size() / 16));
  BATON_TRY(const int64_t most,
            int_argument(given[2].is_none() ? Value() : given[2], "count of replace", -1));
  BATON_CHECK_OK(run.budget().text(replaced_bytes(text, from, to)));
  return Value(replace(text, from, to, most));
}

result<Value> indent_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("indent", arguments, {"width", "first", "blank"}));
  std::string indent;
  if (given[0].is_string()) {
    indent = given[0].as_string();
  } else {
    BATON_TRY(const int64_t width, int_argument(given[0], "width of indent", 4));
    indent.assign(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' ');
  }
  BATON_TRY(std::string text, text_of(run.budget(), subject));
  text += '\n';
  const auto lines = split_lines(text);
  BATON_CHECK_OK(run.budget().text(text.size() + lines.size() * indent.size()));
  std::string out = given[1].truthy() ? indent : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (given[2].truthy() || !lines[i].empty())) out += indent;
    out += lines[i];
  }
  return Value(std::move(out));
}

result<Value> tojson_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given,
            bind("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = given[0].truthy();
  style.sort_keys = given[3].truthy();
  if (!given[1].is_undefined() && !given[1].is_none()) {
    BATON_TRY(const int64_t indent, int_argument(given[1], "indent of tojson", 0));
    style.indent = static_cast<int>(std::clamp<int64_t>(indent, 0, 16));
    style.item_separator = std::string(1, ',');
  }
  if (given[2].is_list()) {
    const auto& pair = given[2].items();
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return error(Errc::kInvalidArgument, "separators of tojson must be two strings");
    }
    style.item_separator = pair[0].as_string();
    style.key_separator = pair[1].as_string();
  }
  BATON_CHECK_OK(run.budget().step(subject.weight() / 16));
  BATON_TRY(std::string text, to_json(subject, style));
  return make_text(run.budget(), std::move(text));
}

result<Value> default_filter(Runtime&, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("default", arguments, {"default_value", "boolean"}));
  const bool absent = subject.is_undefined() || (given[1].truthy() && !subject.truthy());
  if (!absent) return subject;
  return arguments.positional.empty() && arguments.named.empty() ? Value("") : given[0];
}

std::string without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    out += text[i];
  }
  return out;
}

// float(text); nothing where Python raises ValueError.
std::optional<double> parse_float(std::string_view text) {
  std::string clean = without_underscores(strip(text, std::nullopt, Side::kBoth));
  std::string_view digits = clean;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.starts_with('+') || digits.empty()) return std::nullopt;
  double v = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), v);
  if (failure != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return v;
}

std::optional<int64_t> parse_int(std::string_view text, int base) {
  std::string clean = without_underscores(strip(text, std::nullopt, Side::kBoth));
  std::string_view digits = clean;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (base == 16 && (digits.starts_with("0x") || digits.starts_with("0X"))) digits.remove_prefix(2);
  int64_t v = 0;
  const auto [end, failure] =
      std::from_chars(digits.data(), digits.data() + digits.size(), v, base);
  if (failure != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return v;
}

std::optional<int64_t> truncated(double v) {
  if (!(std::abs(v) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(v);
}

result<Value> int_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("int", arguments, {"default", "base"}));
  BATON_TRY(const int64_t base, int_argument(given[1], "base of int", 10));
  if (subject.is_undefined()) return error(Errc::kInvalidArgument, subject.undefined_reason());
  BATON_CHECK_OK(run.budget().step(subject.weight() / 16));
  if (base < 2 || base > 36) return error(Errc::kInvalidArgument, "base of int is out of range");
  std::optional<int64_t> out;
  if (subject.is_float()) out = truncated(subject.as_double());
  if (subject.is_int() || subject.is_bool()) out = subject.as_int();
  if (subject.is_string()) {
    out = parse_int(subject.as_string(), static_cast<int>(base));
    if (!out) {
      const auto v = parse_float(subject.as_string());
      if (v) out = truncated(*v);
    }
  }
  if (out) return Value(*out);
  return given[0].is_undefined() ? Value(int64_t{0}) : given[0];
}

result<Value> float_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("float", arguments, {"default"}));
  BATON_CHECK_OK(run.budget().step(subject.weight() / 16));
  if (subject.is_undefined()) return error(Errc::kInvalidArgument, subject.undefined_reason());
  if (subject.is_number()) return Value(subject.as_double());
  if (subject.is_string()) {
    if (const auto v = parse_float(subject.as_string())) return Value(*v);
  }
  return given[0].is_undefined() ? Value(0.0) : given[0];
}

result<Value> abs_filter(Runtime&, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("abs", arguments, {}));
  if (subject.is_float()) return Value(std::abs(subject.as_double()));
  if (!subject.is_number() || subject.as_int() == INT64_MIN) {
    return error(Errc::kInvalidArgument, "abs takes a number");
  }
  return Value(std::abs(subject.as_int()));
}

result<Value> round_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("round", arguments, {"precision", "method"}));
  BATON_TRY(const int64_t precision, int_argument(given[0], "precision of round", 0));
  if (!subject.is_number() || precision < 0 || precision > 15) {
    return error(Errc::kInvalidArgument, "round takes a number and a precision of 0 to 15");
  }
  const double v = subject.as_double(), scale = std::pow(10.0, static_cast<double>(precision));
  BATON_TRY(const std::string how,
            text_of(run.budget(), given[1].is_undefined() ? Value("common") : given[1]));
  if (how == "ceil") return Value(std::ceil(v * scale) / scale);
  if (how == "floor") return Value(std::floor(v * scale) / scale);
  if (how != "common")
    return error(Errc::kInvalidArgument, "round has no method " + formats::printable(how));
  if (subject.is_int()) return subject;
  return Value(std::strtod(fmt::format("{:.{}f}", v, precision).c_str(), nullptr));
}

struct Entry {
  std::string_view name;
  FilterBody body;
};
constexpr Entry kFilters[] = {
    {"trim", trim_filter},
    {"upper", convert_filter<upper>},
    {"lower", convert_filter<lower>},
    {"capitalize", convert_filter<capitalize>},
    {"title", convert_filter<title_words>},
    {"string", string_filter},
    {"safe", string_filter},
    {"escape", escape_filter},
    {"e", escape_filter},
    {"replace", replace_filter},
    {"indent", indent_filter},
    {"tojson", tojson_filter},
    {"default", default_filter},
    {"d", default_filter},
    {"int", int_filter},
    {"float", float_filter},
    {"abs", abs_filter},
    {"round", round_filter},
};

}  // namespace

FilterBody find_text_filter(std::string_view name) {
  const auto* found = std::ranges::find(kFilters, name, &Entry::name);
  return found == std::end(kFilters) ? nullptr : found->body;
}

}  // namespace baton::text::jinja
