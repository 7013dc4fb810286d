#include "router/placement/slo_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

namespace baton::router {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

// Names are labels of metrics, and words of the access log.
bool is_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxSloNameBytes) return false;
  if (!is_letter(name[0]) && !is_digit(name[0])) return false;
  return std::ranges::all_of(
      name, [](char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '-'; });
}

std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view kBetween = ", \t\n";
  std::vector<std::string_view> words;
  for (size_t begin = 0; (begin = text.find_first_not_of(kBetween, begin)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

template <class... Args>
Error bad(fmt::format_string<Args...> format, Args&&... args) {
  return error(Errc::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

// "500ms", "0.5s".
result<Duration> parse_time(const SloClass& of, std::string_view key, std::string_view text) {
  const bool ms = text.ends_with("ms");
  const auto number = text.ends_with("s")
                          ? parse_plain_number(text.substr(0, text.size() - (ms ? 2 : 1)))
                          : std::nullopt;
  if (!number) {
    return bad("--slo-class {}: {} must be a time such as 500ms or 0.5s, not '{}'", of.name, key,
               text);
  }
  const auto target = slo_target_of_ms(ms ? *number : *number * 1e3);
  if (!target) return bad("--slo-class {}: {} must be in [1ms, 3600s], not {}", of.name, key, text);
  return *target;
}

status add_class(std::string_view name, SloClasses& classes) {
  if (!is_name(name)) {
    return bad(
        "--slo-class: the name '{}' must have 1 to {} of a-z, 0-9, _ and -, a letter or "
        "digit first",
        name, kMaxSloNameBytes);
  }
  if (name == "auto") return bad("--slo-class: 'auto' is what requests call the default class");
  if (classes.find(name)) return bad("--slo-class {}: the class is there twice", name);
  if (classes.all.size() == kMaxSloClasses) {
    return bad("--slo-class {}: at most {} classes can be", name, kMaxSloClasses);
  }
  classes.all.push_back({.name = std::string(name)});
  return {};
}

status add_setting(std::string_view word, SloClass& to) {
  if (word == "best-effort") {
    if (to.best_effort) return bad("--slo-class {}: best-effort is there twice", to.name);
    to.best_effort = true;
    return {};
  }
  const size_t equals = word.find('=');
  const std::string_view key = word.substr(0, equals);
  if (equals == word.npos || (key != "ttft" && key != "tpot")) {
    return bad("--slo-class {}: '{}' is none of ttft=TIME, tpot=TIME and best-effort", to.name,
               word);
  }
  std::optional<Duration>& target = key == "ttft" ? to.target.ttft : to.target.tpot;
  if (target) return bad("--slo-class {}: {} is there twice", to.name, key);
  BATON_TRY(target, parse_time(to, key, word.substr(equals + 1)));
  return {};
}

status add_word(std::string_view word, SloClasses& classes) {
  const size_t colon = word.find(':');
  if (colon != word.npos) {
    BATON_CHECK_OK(add_class(word.substr(0, colon), classes));
    word = word.substr(colon + 1);
    if (word.empty()) return {};
  }
  if (classes.all.empty())
    return bad("--slo-class: '{}' is of no class: write NAME: {}", word, word);
  return add_setting(word, classes.all.back());
}

status choose_default(std::string_view name, SloClasses& classes) {
  const auto found = classes.find(name.empty() ? "default" : name);
  if (!found && !name.empty()) {
    return bad("--default-slo-class: there is no class '{}', only {}", name, classes.names());
  }
  classes.by_default = found.value_or(0);
  const auto by_name = classes.find("default");
  if (by_name && *by_name != classes.by_default) {
    return bad(
        "--default-slo-class {}: the class 'default' must be the default one, since requests "
        "call that so",
        name);
  }
  return {};
}

}  // namespace

std::optional<uint32_t> SloClasses::find(std::string_view name) const {
  const auto found = std::ranges::find(all, name, &SloClass::name);
  if (found == all.end()) return std::nullopt;
  return static_cast<uint32_t>(found - all.begin());
}

std::string SloClasses::names() const {
  std::string out;
  for (const SloClass& each : all) out += (out.empty() ? "" : ", ") + each.name;
  return out;
}

result<SloClasses> parse_slo_classes(const std::vector<std::string>& given,
                                     std::string_view default_name) {
  SloClasses classes;
  classes.all.clear();
  for (const std::string& text : given) {
    for (const std::string_view word : words_of(text)) BATON_CHECK_OK(add_word(word, classes));
  }
  if (classes.all.empty()) classes = {};
  BATON_CHECK_OK(choose_default(default_name, classes));
  return classes;
}

std::optional<double> parse_plain_number(std::string_view text) {
  if (text.empty() || !is_digit(text.front()) || !is_digit(text.back())) return std::nullopt;
  double number = 0;
  const auto [end, failed] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<Duration> slo_target_of_ms(double ms) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  if (!(ms >= Milliseconds(kMinSloTarget).count()) || ms > Milliseconds(kMaxSloTarget).count()) {
    return std::nullopt;
  }
  return std::chrono::round<Duration>(Milliseconds(ms));
}

}  // namespace baton::router
