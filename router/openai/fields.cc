#include "router/openai/fields.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <limits>
#include <utility>

namespace baton::router {

namespace json = boost::json;

std::optional<int64_t> json_to_int(const json::value& value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (const int64_t* i = value.if_int64()) return *i;
  if (const double* d = value.if_double(); d && std::abs(*d) <= kExact && *d == std::floor(*d)) {
    return static_cast<int64_t>(*d);
  }
  return std::nullopt;
}

Fields::Fields(const json::object& object, std::string path)
    : object_(&object), path_(std::move(path)) {}

const json::value* Fields::find(std::string_view name) const {
  const json::value* value = object_->if_contains(json::string_view(name.data(), name.size()));
  return value && !value->is_null() ? value : nullptr;
}

ApiError Fields::bad(std::string_view name, std::string_view reason) const {
  return bad_field(path_of(name), reason);
}

api_result<std::optional<double>> Fields::number(std::string_view name, double min,
                                                 double max) const {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number()) return bad(name, "must be a number");
  const double number = value->to_number<double>();
  if (!std::isfinite(number) || number < min || number > max) {
    return bad(name, fmt::format("must be between {} and {}, not {}", min, max, number));
  }
  return number;
}

api_result<std::optional<int64_t>> Fields::integer(std::string_view name, int64_t min,
                                                   int64_t max) const {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_number()) return bad(name, "must be a whole number");
  const std::optional<int64_t> number = json_to_int(*value);
  if (number && *number >= min && *number <= max) return *number;
  if (!number && value->is_double() && std::abs(value->get_double()) < 1e15) {
    return bad(name, fmt::format("must be a whole number, not {}", value->get_double()));
  }
  if (max == std::numeric_limits<int64_t>::max()) {
    return bad(name, fmt::format("must be a whole number of at least {}", min));
  }
  return bad(name, fmt::format("must be a whole number between {} and {}{}", min, max,
                               number ? fmt::format(", not {}", *number) : ""));
}

api_result<std::optional<bool>> Fields::boolean(std::string_view name) const {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  if (!value->is_bool()) return bad(name, "must be true or false");
  return value->get_bool();
}

api_result<std::optional<std::string_view>> Fields::string(std::string_view name,
                                                           size_t max_bytes) const {
  const json::value* value = find(name);
  if (!value) return std::nullopt;
  const json::string* text = value->if_string();
  if (!text) return bad(name, "must be a string");
  if (text->size() > max_bytes) {
    return bad(name, fmt::format("must have at most {} bytes, not {}", max_bytes, text->size()));
  }
  return std::string_view(text->data(), text->size());
}

api_result<double> Fields::number_or(std::string_view name, double min, double max,
                                     double fallback) const {
  BATON_TRY(const std::optional<double> value, number(name, min, max));
  return value.value_or(fallback);
}

api_result<int64_t> Fields::integer_or(std::string_view name, int64_t min, int64_t max,
                                       int64_t fallback) const {
  BATON_TRY(const std::optional<int64_t> value, integer(name, min, max));
  return value.value_or(fallback);
}

api_result<bool> Fields::boolean_or(std::string_view name, bool fallback) const {
  BATON_TRY(const std::optional<bool> value, boolean(name));
  return value.value_or(fallback);
}

}  // namespace baton::router
