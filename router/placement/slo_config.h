#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "router/placement/slo.h"

// The classes of service of a router, as --slo-class and --default-slo-class give them.
namespace baton::router {

inline constexpr size_t kMaxSloClasses = 8;
inline constexpr size_t kMaxSloNameBytes = 32;

// What a target may be, of a class and of a request.
inline constexpr Duration kMinSloTarget = milliseconds(1), kMaxSloTarget = std::chrono::hours(1);

struct SloClasses {
  std::vector<SloClass> all = {SloClass{.name = "default"}};  // 1 .. kMaxSloClasses
  uint32_t by_default = 0;                                    // of `all`

  std::optional<uint32_t> find(std::string_view name) const;
  const SloClass& operator[](uint32_t index) const { return all[index]; }
  std::string names() const;  // "a, b", for errors
};

// `given`: "NAME: ttft=500ms, tpot=0.05s" or "NAME: best-effort", or both; or the words of that, as
// a flag's list is split at blanks and commas: a word with a colon begins a class. None: one class
// "default" without targets. `default_name`: empty for the class "default", or else the first.
// Errors name the flag, the class and what is wrong in it.
result<SloClasses> parse_slo_classes(const std::vector<std::string>& given,
                                     std::string_view default_name);

// Digits, with or without a fraction: no sign, exponent or blank.
std::optional<double> parse_plain_number(std::string_view text);
// Nothing: out of bounds.
std::optional<Duration> slo_target_of_ms(double ms);

}  // namespace baton::router
