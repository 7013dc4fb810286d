#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace baton::formats {

struct JsonLimits {
  size_t max_bytes = size_t{1} << 20;
  size_t max_depth = 32;  // of nested arrays and objects
};

// tokenizer.json holds the vocabulary and its merges; the largest public ones have 35 MB.
inline constexpr JsonLimits kTokenizerJsonLimits{size_t{128} << 20, 32};

// The JSON value in `text`; `source` names it in errors. Stricter than Boost.JSON alone: a key that
// an object has twice and a number that is not finite are refused, as are bad UTF-8, text after the
// value, and anything beyond the limits. kDataCorrupt, or kResourceExhausted beyond max_bytes.
result<boost::json::value> parse_json(std::string_view text, std::string_view source,
                                      const JsonLimits& limits = {});

// parse_json on a whole file; also MappedFile's errors. Blocks on the disk.
result<boost::json::value> read_json_file(const std::filesystem::path& path,
                                          const JsonLimits& limits = {});

// Typed reading of an object's fields. Every error is one sentence that names source and field.
// Holds a pointer: the value read must outlive it. A field that is null counts as absent.
// A missing field is kNotFound; one of another type or out of range is kDataCorrupt.
class JsonFields {
 public:
  // The root object of a document.
  static result<JsonFields> root(const boost::json::value& value, std::string_view source);

  bool has(std::string_view field) const;
  // nullptr where absent.
  const boost::json::value* find(std::string_view field) const;
  const boost::json::object& object() const { return *object_; }
  const std::string& source() const { return source_; }

  result<JsonFields> fields(std::string_view field) const;
  result<const boost::json::array*> array(std::string_view field) const;
  result<std::string_view> string(std::string_view field) const;
  result<uint64_t> uint(std::string_view field) const;
  result<double> number(std::string_view field) const;  // an integer counts as a number
  result<bool> boolean(std::string_view field) const;

  // "FILE: field 'a.b' REASON", for callers that check more than the type.
  Error bad(std::string_view field, std::string_view reason) const;

 private:
  JsonFields(const boost::json::object* object, std::string source, std::string prefix)
      : object_(object), source_(std::move(source)), prefix_(std::move(prefix)) {}
  result<const boost::json::value*> require(std::string_view field) const;

  const boost::json::object* object_;
  std::string source_;
  std::string prefix_;  // "rope_scaling." inside that object
};

// A JSON integer, or a double without a fraction, in 0..2^53 (the last only where it is exact).
bool json_to_uint(const boost::json::value& value, uint64_t* out);

}  // namespace baton::formats
