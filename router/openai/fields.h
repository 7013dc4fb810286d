#pragma once

#include <boost/json/fwd.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "router/openai/error.h"

namespace baton::router {

// Typed reading of a request's fields. A field that is null counts as absent, as the OpenAI API has
// it. Every error names the field by its path and the bound. Holds a pointer: the object outlives
// it.
class Fields {
 public:
  // `path`: what stands before a field's name, for example "messages[2].".
  explicit Fields(const boost::json::object& object, std::string path = {});

  // nullptr where absent.
  const boost::json::value* find(std::string_view name) const;

  // Nothing where absent; bounds are inclusive.
  api_result<std::optional<double>> number(std::string_view name, double min, double max) const;
  api_result<std::optional<int64_t>> integer(std::string_view name, int64_t min, int64_t max) const;
  api_result<std::optional<bool>> boolean(std::string_view name) const;
  api_result<std::optional<std::string_view>> string(std::string_view name, size_t max_bytes) const;

  // `fallback` where absent.
  api_result<double> number_or(std::string_view name, double min, double max,
                               double fallback) const;
  api_result<int64_t> integer_or(std::string_view name, int64_t min, int64_t max,
                                 int64_t fallback) const;
  api_result<bool> boolean_or(std::string_view name, bool fallback) const;

  const boost::json::object& object() const { return *object_; }
  std::string path_of(std::string_view name) const { return path_ + std::string(name); }
  ApiError bad(std::string_view name, std::string_view reason) const;

 private:
  const boost::json::object* object_;
  std::string path_;
};

// A JSON integer, or a double without a fraction that an int64 holds exactly.
std::optional<int64_t> json_to_int(const boost::json::value& value);

}  // namespace baton::router
