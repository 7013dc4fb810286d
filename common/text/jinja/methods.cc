// The methods of Python's str, dict and list that a sandboxed template may call.
#include "common/text/jinja/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "common/text/jinja/comparison.h"
#include "common/text/jinja/operators.h"
#include "common/text/jinja/runtime.h"
#include "common/text/jinja/strings.h"

namespace baton::text::jinja {
namespace {

using Body = result<Value> (*)(Runtime&, const Value& self, const Arguments&);
struct Entry {
  std::string_view name;
  Body body;
};

result<Value> text_list(Runtime& run, const std::vector<std::string_view>& parts) {
  std::vector<Value> out;
  out.reserve(parts.size());
  for (std::string_view part : parts) {
    BATON_TRY(Value text, make_text(run.budget(), part));
    out.push_back(std::move(text));
  }
  return Value::list(std::move(out));
}

template <Side side>
result<Value> strip_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("strip", arguments, {"chars"}));
  return strip_value(run, self.as_string(), given[0], side);
}

result<Value> split_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("split", arguments, {"sep", "maxsplit"}));
  BATON_TRY(const int64_t most, int_argument(given[1], "maxsplit of split()", -1));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 32));
  if (given[0].is_undefined() || given[0].is_none()) {
    return text_list(run, split(self.as_string(), std::nullopt, most));
  }
  BATON_TRY(const std::string_view separator, string_argument(given[0], "sep of split()"));
  if (separator.empty()) return error(Errc::kInvalidArgument, "split() by an empty separator");
  return text_list(run, split(self.as_string(), separator, most));
}

result<Value> splitlines_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("splitlines", arguments, {}));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 64));
  return text_list(run, split_lines(self.as_string()));
}

// startswith and endswith take one text or a tuple of several.
template <bool at_start>
result<Value> affix_method(Runtime& run, const Value& self, const Arguments& arguments) {
  constexpr std::string_view kName = at_start ? "startswith" : "endswith";
  BATON_TRY(const auto given, bind(kName, arguments, {"affix"}));
  const std::vector<Value> one = {given[0]};
  const std::string_view text = self.as_string();
  for (const Value& choice : given[0].is_tuple() ? given[0].items() : one) {
    BATON_TRY(const std::string_view affix, string_argument(choice, kName));
    BATON_CHECK_OK(run.budget().step(1 + std::min(affix.size(), text.size()) / 1024));
    if (at_start ? text.starts_with(affix) : text.ends_with(affix)) return Value(true);
  }
  return Value(false);
}

template <bool at_start>
result<Value> remove_affix_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("removeprefix", arguments, {"affix"}));
  BATON_TRY(const std::string_view affix, string_argument(given[0], "the affix to remove"));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 1024));
  std::string_view text = self.as_string();
  if (at_start && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!at_start && text.ends_with(affix)) text.remove_suffix(affix.size());
  return make_text(run.budget(), text);
}

template <std::string (*convert)(std::string_view)>
result<Value> convert_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("a text's method", arguments, {}));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 16));
  return make_text(run.budget(), convert(self.as_string()));
}

result<Value> replace_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("replace", arguments, {"old", "new", "count"}));
  BATON_TRY(const std::string_view from, string_argument(given[0], "old of replace()"));
  BATON_TRY(const std::string_view to, string_argument(given[1], "new of replace()"));
  BATON_TRY(const int64_t most, int_argument(given[2], "count of replace()", -1));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 16));
  BATON_CHECK_OK(run.budget().text(replaced_bytes(self.as_string(), from, to)));
  return Value(replace(self.as_string(), from, to, most));
}

template <bool first>
result<Value> find_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("find", arguments, {"sub"}));
  BATON_TRY(const std::string_view part, string_argument(given[0], "sub of find()"));
  const std::string_view text = self.as_string();
  BATON_CHECK_OK(run.budget().step(text.size() / 64));
  // Backwards no search is linear.
  if (!first) BATON_CHECK_OK(run.budget().step(text.size() / 64 * (part.size() / 64)));
  const size_t at = first ? find_text(text, part) : text.rfind(part);
  return at == std::string_view::npos ? Value(int64_t{-1})
                                      : Value::size(length(text.substr(0, at)));
}

result<Value> count_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("count", arguments, {"sub"}));
  if (self.is_list()) {
    size_t found = 0;
    BATON_CHECK_OK(run.budget().step(self.items().size() / 16));
    for (const Value& item : self.items()) {
      BATON_TRY(const bool same, equal(run.budget(), item, given[0]));
      found += same ? 1 : 0;
    }
    return Value::size(found);
  }
  BATON_TRY(const std::string_view part, string_argument(given[0], "sub of count()"));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 64));
  return Value::size(count(self.as_string(), part));
}

result<Value> join_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("join", arguments, {"iterable"}));
  BATON_TRY(const auto items, iterate(run.budget(), given[0]));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_TRY(const std::string_view part, string_argument(items[i], "each item of join()"));
    BATON_CHECK_OK(run.budget().text(part.size() + self.as_string().size()));
    if (i > 0) out += self.as_string();
    out += part;
    if (out.size() > run.budget().limits().max_output_bytes)
      return run.budget().text(out.size()).error();
  }
  return Value(std::move(out));
}

// True where there is at least one character and `holds` for each.
template <bool (*holds)(char)>
result<Value> every_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("a text's method", arguments, {}));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 64));
  return Value(!self.as_string().empty() && std::ranges::all_of(self.as_string(), holds));
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_alphanumeric(char c) { return is_digit(c) || is_letter(c); }

result<Value> isspace_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("isspace", arguments, {}));
  BATON_CHECK_OK(run.budget().step(self.as_string().size() / 16));
  const std::string_view text = self.as_string();
  return Value(!text.empty() && strip(text, std::nullopt, Side::kBoth).empty());
}

result<Value> keys_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("keys", arguments, {}));
  BATON_TRY(auto keys, iterate(run.budget(), self));
  return Value::list(std::move(keys));
}

result<Value> values_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("values", arguments, {}));
  BATON_CHECK_OK(run.budget().step(self.entries().size() / 8));
  std::vector<Value> out;
  for (const auto& [key, value] : self.entries()) out.push_back(value);
  return Value::list(std::move(out));
}

result<Value> items_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_CHECK_OK(bind("items", arguments, {}));
  std::vector<Value> out;
  for (const auto& [key, value] : self.entries()) {
    BATON_CHECK_OK(run.budget().step());
    BATON_TRY(Value pair, Value::tuple({key, value}));
    out.push_back(std::move(pair));
  }
  return Value::list(std::move(out));
}

result<Value> get_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("get", arguments, {"key", "default"}));
  BATON_TRY(const Value* found, find(run.budget(), self, given[0]));
  if (found != nullptr) return *found;
  return given[1].is_undefined() ? Value(None{}) : given[1];
}

result<Value> index_method(Runtime& run, const Value& self, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("index", arguments, {"value"}));
  BATON_TRY(const size_t at, index_of(run.budget(), self.items(), given[0]));
  if (at == self.items().size()) return error(Errc::kInvalidArgument, "index() of a missing item");
  return Value::size(at);
}

constexpr Entry kStringMethods[] = {
    {"strip", strip_method<Side::kBoth>},
    {"lstrip", strip_method<Side::kLeft>},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method},
    {"splitlines", splitlines_method},
    {"startswith", affix_method<true>},
    {"endswith", affix_method<false>},
    {"removeprefix", remove_affix_method<true>},
    {"removesuffix", remove_affix_method<false>},
    {"upper", convert_method<upper>},
    {"lower", convert_method<lower>},
    {"title", convert_method<title>},
    {"capitalize", convert_method<capitalize>},
    {"replace", replace_method},
    {"find", find_method<true>},
    {"rfind", find_method<false>},
    {"count", count_method},
    {"join", join_method},
    {"isdigit", every_method<is_digit>},
    {"isalpha", every_method<is_letter>},
    {"isalnum", every_method<is_alphanumeric>},
    {"isspace", isspace_method},
};
constexpr Entry kDictMethods[] = {
    {"keys", keys_method}, {"values", values_method}, {"items", items_method}, {"get", get_method}};
constexpr Entry kListMethods[] = {{"index", index_method}, {"count", count_method}};

}  // namespace

result<Value> strip_value(Runtime& run, std::string_view text, const Value& chars, Side side) {
  if (chars.is_undefined() || chars.is_none()) {
    BATON_CHECK_OK(run.budget().step(text.size() / 32));
    return make_text(run.budget(), strip(text, std::nullopt, side));
  }
  BATON_TRY(const std::string_view set, string_argument(chars, "the argument of strip()"));
  // Each character may be looked for among all of `set`.
  BATON_CHECK_OK(run.budget().step(text.size() / 64 * (1 + set.size() / 4)));
  return make_text(run.budget(), strip(text, set, side));
}

result<Value> method(const Value& receiver, std::string_view name) {
  std::span<const Entry> methods;
  if (receiver.is_string()) methods = kStringMethods;
  if (receiver.is_dict()) methods = kDictMethods;
  if (receiver.is_list()) methods = kListMethods;
  const auto found = std::ranges::find(methods, name, &Entry::name);
  if (found == methods.end()) return Value();
  auto body = [receiver, body = found->body](Runtime& run, const Arguments& arguments) {
    return body(run, receiver, arguments);
  };
  return Value::bound(receiver, {std::string(name), std::move(body)});
}

}  // namespace baton::text::jinja
