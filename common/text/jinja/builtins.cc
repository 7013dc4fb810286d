// Tests, global functions, and how filters and tests are found.
#include "common/text/jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "common/text/jinja/operators.h"
#include "common/text/jinja/strings.h"

namespace baton::text::jinja {
namespace {

template <bool (*holds)(const Value&)>
result<bool> type_test(Runtime&, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("this test", arguments, {}));
  return holds(subject);
}
bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_mapping(const Value& v) { return v.is_dict(); }
bool is_sequence(const Value& v) {
  return v.is_list() || v.is_dict() || v.is_string() || v.is_undefined();
}
bool is_number(const Value& v) { return v.is_number(); }
bool is_integer(const Value& v) { return v.is_int(); }
bool is_float(const Value& v) { return v.is_float(); }
bool is_boolean(const Value& v) { return v.is_bool(); }
bool is_true(const Value& v) { return v.is_bool() && v.as_bool(); }
bool is_false(const Value& v) { return v.is_bool() && !v.as_bool(); }
bool is_callable(const Value& v) { return v.is_callable(); }

template <CompareOp op>
result<bool> compare_test(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("this test", arguments, {"other"}));
  return compare(run.budget(), op, subject, given[0]);
}

result<bool> divisibleby_test(Runtime&, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("divisibleby", arguments, {"num"}));
  BATON_TRY(const int64_t by, int_argument(given[0], "the argument of divisibleby", 0));
  BATON_TRY(const int64_t n, int_argument(subject, "what divisibleby tests", 0));
  if (by == 0) return error(Errc::kInvalidArgument, "divisibleby zero");
  return by == -1 || n % by == 0;
}

template <int64_t rest>
result<bool> parity_test(Runtime&, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("odd and even", arguments, {}));
  BATON_TRY(const int64_t n, int_argument(subject, "what odd and even test", 0));
  return (n & 1) == rest;
}

template <std::string (*convert)(std::string_view), std::string (*other)(std::string_view)>
result<bool> case_test(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("upper and lower", arguments, {}));
  BATON_TRY(const std::string text, text_of(run.budget(), subject));
  BATON_CHECK_OK(run.budget().step(text.size() / 8));
  return convert(text) == text && other(text) != text;
}

struct Entry {
  std::string_view name;
  TestBody body;
};
constexpr Entry kTests[] = {
    {"defined", type_test<is_defined>},
    {"undefined", type_test<is_undefined>},
    {"none", type_test<is_none>},
    {"string", type_test<is_string>},
    {"mapping", type_test<is_mapping>},
    {"sequence", type_test<is_sequence>},
    {"iterable", type_test<is_sequence>},
    {"number", type_test<is_number>},
    {"integer", type_test<is_integer>},
    {"float", type_test<is_float>},
    {"boolean", type_test<is_boolean>},
    {"true", type_test<is_true>},
    {"false", type_test<is_false>},
    {"callable", type_test<is_callable>},
    {"eq", compare_test<CompareOp::kEqual>},
    {"equalto", compare_test<CompareOp::kEqual>},
    {"==", compare_test<CompareOp::kEqual>},
    {"sameas", compare_test<CompareOp::kEqual>},
    {"ne", compare_test<CompareOp::kNotEqual>},
    {"!=", compare_test<CompareOp::kNotEqual>},
    {"lt", compare_test<CompareOp::kLess>},
    {"lessthan", compare_test<CompareOp::kLess>},
    {"<", compare_test<CompareOp::kLess>},
    {"le", compare_test<CompareOp::kLessEqual>},
    {"<=", compare_test<CompareOp::kLessEqual>},
    {"gt", compare_test<CompareOp::kGreater>},
    {"greaterthan", compare_test<CompareOp::kGreater>},
    {">", compare_test<CompareOp::kGreater>},
    {"ge", compare_test<CompareOp::kGreaterEqual>},
    {">=", compare_test<CompareOp::kGreaterEqual>},
    {"in", compare_test<CompareOp::kIn>},
    {"divisibleby", divisibleby_test},
    {"odd", parity_test<1>},
    {"even", parity_test<0>},
    {"upper", case_test<upper, lower>},
    {"lower", case_test<lower, upper>},
};

result<Value> range_function(Runtime& run, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("range", arguments, {"start", "stop", "step"}));
  BATON_TRY(int64_t start, int_argument(given[0], "range's first argument", 0));
  BATON_TRY(int64_t stop, int_argument(given[1], "range's stop", 0));
  BATON_TRY(const int64_t step, int_argument(given[2], "range's step", 1));
  if (arguments.positional.empty()) return error(Errc::kInvalidArgument, "range of nothing");
  if (given[1].is_undefined()) stop = std::exchange(start, 0);
  if (step == 0) return error(Errc::kInvalidArgument, "range's step is zero");
  std::vector<Value> out;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (out.size() == 100'000) {
      return error(Errc::kResourceExhausted, "a range has more than 100000 items");
    }
    BATON_CHECK_OK(run.budget().step());
    out.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return Value::list(std::move(out));
}

// The entries of dict(...) and namespace(...): those of a first dict, then the named ones.
result<std::vector<std::pair<std::string, Value>>> named_entries(Runtime& run,
                                                                 std::string_view function,
                                                                 const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> out;
  if (arguments.positional.size() > 1 ||
      (arguments.positional.size() == 1 && !arguments.positional[0].is_dict())) {
    return error(Errc::kInvalidArgument, fmt::format("{}() takes one mapping", function));
  }
  if (!arguments.positional.empty()) {
    for (const auto& [key, value] : arguments.positional[0].entries()) {
      BATON_TRY(const std::string_view name, string_argument(key, "a key"));
      BATON_CHECK_OK(run.budget().text(name.size()));
      out.emplace_back(name, value);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    BATON_CHECK_OK(run.budget().step(1 + out.size() / 16));
    const auto old = std::ranges::find(out, name, &std::pair<std::string, Value>::first);
    if (old != out.end()) {
      old->second = value;
    } else {
      out.emplace_back(name, value);
    }
  }
  return out;
}

result<Value> namespace_function(Runtime& run, const Arguments& arguments) {
  BATON_TRY(auto entries, named_entries(run, "namespace", arguments));
  return Value(run.make_namespace(
      {std::make_move_iterator(entries.begin()), std::make_move_iterator(entries.end())}));
}

result<Value> dict_function(Runtime& run, const Arguments& arguments) {
  BATON_TRY(auto entries, named_entries(run, "dict", arguments));
  std::vector<std::pair<Value, Value>> out;
  for (auto& [name, value] : entries) out.emplace_back(std::move(name), std::move(value));
  return Value::dict(std::move(out));
}

result<Value> raise_function(Runtime& run, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("raise_exception", arguments, {"message"}));
  BATON_TRY(const std::string message, text_of(run.budget(), given[0]));
  return error(Errc::kInvalidArgument, message);
}

result<Value> strftime_function(Runtime& run, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("strftime_now", arguments, {"format"}));
  BATON_TRY(const std::string_view format, string_argument(given[0], "strftime_now's format"));
  BATON_CHECK_OK(run.budget().step(format.size() / 16));
  const auto day = std::chrono::floor<std::chrono::days>(run.now());
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(run.now() - day);
  const auto year_start =
      std::chrono::local_days(std::chrono::year_month_day(date.year() / std::chrono::January / 1));
  std::tm tm{};
  tm.tm_year = static_cast<int>(date.year()) - 1900;
  tm.tm_mon = static_cast<int>(static_cast<unsigned>(date.month())) - 1;
  tm.tm_mday = static_cast<int>(static_cast<unsigned>(date.day()));
  tm.tm_hour = static_cast<int>(time.hours().count());
  tm.tm_min = static_cast<int>(time.minutes().count());
  tm.tm_sec = static_cast<int>(time.seconds().count());
  tm.tm_wday = static_cast<int>(std::chrono::weekday(day).c_encoding());
  tm.tm_yday = static_cast<int>((day - year_start).count());
  char out[1024];
  const size_t size = std::strftime(out, sizeof out, std::string(format).c_str(), &tm);
  if (size == 0 && !format.empty()) {
    return error(Errc::kInvalidArgument, "strftime_now's format gives no text or too long a one");
  }
  return make_text(run.budget(), std::string_view(out, size));
}

}  // namespace

TestBody find_test(std::string_view name) {
  const auto* found = std::ranges::find(kTests, name, &Entry::name);
  return found == std::end(kTests) ? nullptr : found->body;
}

result<Value> apply_filter(Runtime& run, std::string_view name, const Value& subject,
                           const Arguments& arguments) {
  FilterBody body = find_text_filter(name);
  if (body == nullptr) body = find_sequence_filter(name);
  if (body == nullptr) {
    return error(Errc::kUnsupported, fmt::format("the filter '{}' is not supported", name));
  }
  BATON_CHECK_OK(run.budget().step());
  return body(run, subject, arguments);
}

result<bool> apply_test(Runtime& run, std::string_view name, const Value& subject,
                        const Arguments& arguments) {
  const TestBody body = find_test(name);
  if (body == nullptr) {
    return error(Errc::kUnsupported, fmt::format("the test '{}' is not supported", name));
  }
  BATON_CHECK_OK(run.budget().step());
  return body(run, subject, arguments);
}

std::vector<std::pair<std::string, Value>> global_functions() {
  using Function = result<Value> (*)(Runtime&, const Arguments&);
  static constexpr std::pair<std::string_view, Function> kFunctions[] = {
      {"range", range_function},
      {"namespace", namespace_function},
      {"dict", dict_function},
      {"raise_exception", raise_function},
      {"strftime_now", strftime_function}};
  std::vector<std::pair<std::string, Value>> out;
  for (const auto& [name, body] : kFunctions) {
    out.emplace_back(name, std::make_shared<const Callable>(Callable{std::string(name), body}));
  }
  return out;
}

}  // namespace baton::text::jinja
