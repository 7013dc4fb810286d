#include "common/formats/hf_json.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <cmath>
#include <utility>
#include <vector>

#include "common/formats/mapped_file.h"
#include "common/formats/utf8.h"

namespace baton::formats {
namespace {

namespace json = boost::json;
using boost::system::error_code;

// Receives the parser's events and builds the value. Needed because Boost.JSON's own builder keeps
// the last of two equal keys and turns 1e9999 into infinity.
class StrictBuilder {
 public:
  static constexpr size_t max_object_size = static_cast<size_t>(-1);
  static constexpr size_t max_array_size = static_cast<size_t>(-1);
  static constexpr size_t max_key_size = static_cast<size_t>(-1);
  static constexpr size_t max_string_size = static_cast<size_t>(-1);

  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code&) { return open(json::object()); }
  bool on_object_end(size_t, error_code& ec) { return close(ec); }
  bool on_array_begin(error_code&) { return open(json::array()); }
  bool on_array_end(size_t, error_code& ec) { return close(ec); }
  bool on_key_part(json::string_view part, size_t, error_code&) { return append(part); }
  bool on_key(json::string_view part, size_t, error_code&) {
    append(part);
    frames_.back().key = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(json::string_view part, size_t, error_code&) { return append(part); }
  bool on_string(json::string_view part, size_t, error_code& ec) {
    append(part);
    json::value value(json::string_view(text_.data(), text_.size()));
    text_.clear();
    return add(std::move(value), ec);
  }
  bool on_number_part(json::string_view, error_code&) { return true; }
  bool on_int64(int64_t value, json::string_view, error_code& ec) { return add(value, ec); }
  bool on_uint64(uint64_t value, json::string_view, error_code& ec) { return add(value, ec); }
  bool on_double(double value, json::string_view, error_code& ec) {
    if (!std::isfinite(value)) return refuse("a number that is out of range", ec);
    return add(value, ec);
  }
  bool on_bool(bool value, error_code& ec) { return add(value, ec); }
  bool on_null(error_code& ec) { return add(nullptr, ec); }
  bool on_comment_part(json::string_view, error_code&) { return true; }
  bool on_comment(json::string_view, error_code&) { return true; }

  json::value take() { return std::move(root_); }
  const std::string& refusal() const { return refusal_; }

 private:
  struct Frame {
    json::value container;
    std::string key;  // of the member that is being read
  };

  bool open(json::value container) {
    frames_.push_back({std::move(container), {}});
    return true;
  }
  bool close(error_code& ec) {
    json::value done = std::move(frames_.back().container);
    frames_.pop_back();
    return add(std::move(done), ec);
  }
  bool append(json::string_view part) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool add(json::value value, error_code& ec) {
    if (frames_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Frame& frame = frames_.back();
    if (json::array* array = frame.container.if_array()) {
      array->push_back(std::move(value));
      return true;
    }
    if (frame.container.get_object().emplace(frame.key, std::move(value)).second) return true;
    return refuse(fmt::format("the key '{}' twice in one object", printable(frame.key)), ec);
  }
  bool refuse(std::string what, error_code& ec) {
    refusal_ = std::move(what);
    ec = make_error_code(boost::system::errc::bad_message);
    return false;
  }

  json::value root_;
  std::vector<Frame> frames_;
  std::string text_;  // the key or string that is being read
  std::string refusal_;
};

}  // namespace

result<json::value> parse_json(std::string_view text, std::string_view source,
                               const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{}: {} bytes of JSON are more than the {} allowed", source,
                             text.size(), limits.max_bytes));
  }
  json::parse_options options;
  options.max_depth = limits.max_depth;
  json::basic_parser<StrictBuilder> parser(options);
  error_code ec;
  const size_t used = parser.write_some(false, text.data(), text.size(), ec);
  if (!parser.handler().refusal().empty()) {
    return error(Errc::kDataCorrupt, fmt::format("{}: the JSON has {} (near byte {})", source,
                                                 parser.handler().refusal(), used));
  }
  if (!ec && used < text.size()) ec = json::error::extra_data;
  if (ec) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{}: not valid JSON near byte {}: {}", source, used, ec.message()));
  }
  return parser.handler().take();
}

result<json::value> read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  BATON_TRY(const MappedFile file, MappedFile::open(path));
  return parse_json(file.text(), file.path(), limits);
}

bool json_to_uint(const json::value& value, uint64_t* out) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (const uint64_t* u = value.if_uint64()) {
    *out = *u;
    return true;
  }
  if (const int64_t* i = value.if_int64(); i && *i >= 0) {
    *out = static_cast<uint64_t>(*i);
    return true;
  }
  if (const double* d = value.if_double(); d && *d >= 0 && *d <= kExact && *d == std::floor(*d)) {
    *out = static_cast<uint64_t>(*d);
    return true;
  }
  return false;
}

result<JsonFields> JsonFields::root(const json::value& value, std::string_view source) {
  if (const json::object* object = value.if_object()) {
    return JsonFields(object, std::string(source), "");
  }
  return error(Errc::kDataCorrupt, fmt::format("{}: the JSON is not an object", source));
}

const json::value* JsonFields::find(std::string_view field) const {
  const json::value* value = object_->if_contains(json::string_view(field.data(), field.size()));
  return value && !value->is_null() ? value : nullptr;
}

bool JsonFields::has(std::string_view field) const { return find(field) != nullptr; }

Error JsonFields::bad(std::string_view field, std::string_view reason) const {
  return error(Errc::kDataCorrupt,
               fmt::format("{}: field '{}{}' {}", source_, prefix_, field, reason));
}

result<const json::value*> JsonFields::require(std::string_view field) const {
  if (const json::value* value = find(field)) return value;
  Error missing = bad(field, "is missing");
  missing.code = Errc::kNotFound;
  return missing;
}

result<JsonFields> JsonFields::fields(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  if (const json::object* object = value->if_object()) {
    return JsonFields(object, source_, fmt::format("{}{}.", prefix_, field));
  }
  return bad(field, "must be an object");
}

result<const json::array*> JsonFields::array(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  if (const json::array* array = value->if_array()) return array;
  return bad(field, "must be an array");
}

result<std::string_view> JsonFields::string(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  if (const json::string* text = value->if_string()) {
    return std::string_view(text->data(), text->size());
  }
  return bad(field, "must be a string");
}

result<uint64_t> JsonFields::uint(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  uint64_t out = 0;
  if (json_to_uint(*value, &out)) return out;
  return bad(field, "must be a whole number of at least 0");
}

result<double> JsonFields::number(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  if (!value->is_number()) return bad(field, "must be a number");
  return value->to_number<double>();
}

result<bool> JsonFields::boolean(std::string_view field) const {
  BATON_TRY(const json::value* value, require(field));
  if (const bool* b = value->if_bool()) return *b;
  return bad(field, "must be true or false");
}

}  // namespace baton::formats
