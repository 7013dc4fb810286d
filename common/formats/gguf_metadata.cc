#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "common/formats/byte_reader.h"
#include "common/formats/gguf.h"
#include "common/formats/utf8.h"

namespace baton::formats {
namespace {

// Calls f(T) for every element of an array whose elements are stored as T.
template <class T, class F>
void for_each(const GgufArray& array, F f) {
  ByteReader reader(array.bytes);
  for (T value; reader.read(&value);) f(value);
}

template <class T>
std::vector<int64_t> to_ints(const GgufArray& array) {
  std::vector<int64_t> out;
  out.reserve(array.count);
  for_each<T>(array, [&](T value) { out.push_back(static_cast<int64_t>(value)); });
  return out;
}

}  // namespace

std::string_view name(GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return "u8";
    case GgufType::kI8:
      return "i8";
    case GgufType::kU16:
      return "u16";
    case GgufType::kI16:
      return "i16";
    case GgufType::kU32:
      return "u32";
    case GgufType::kI32:
      return "i32";
    case GgufType::kF32:
      return "f32";
    case GgufType::kBool:
      return "bool";
    case GgufType::kString:
      return "string";
    case GgufType::kArray:
      return "array";
    case GgufType::kU64:
      return "u64";
    case GgufType::kI64:
      return "i64";
    case GgufType::kF64:
      return "f64";
  }
  return "?";
}

bool GgufMetadata::add(std::string_view key, GgufValue value) {
  return values_.emplace(key, value).second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

Error GgufMetadata::bad(std::string_view key, std::string_view reason) const {
  return error(Errc::kDataCorrupt, fmt::format("{}: key '{}' {}", source_, printable(key), reason));
}

result<const GgufValue*> GgufMetadata::require(std::string_view key) const {
  if (const GgufValue* value = find(key)) return value;
  Error missing = bad(key, "is missing");
  missing.code = Errc::kNotFound;
  return missing;
}

result<uint64_t> GgufMetadata::uint(std::string_view key) const {
  BATON_TRY(const GgufValue* value, require(key));
  if (const auto* u = std::get_if<uint64_t>(value)) return *u;
  const auto* i = std::get_if<int64_t>(value);
  if (!i) return bad(key, "must be an integer");
  if (*i < 0) return bad(key, fmt::format("must not be negative but is {}", *i));
  return static_cast<uint64_t>(*i);
}

result<double> GgufMetadata::number(std::string_view key) const {
  BATON_TRY(const GgufValue* value, require(key));
  const auto* d = std::get_if<double>(value);
  if (!d) return bad(key, "must be a floating-point number");
  if (!std::isfinite(*d)) return bad(key, "must be finite");
  return *d;
}

result<bool> GgufMetadata::boolean(std::string_view key) const {
  BATON_TRY(const GgufValue* value, require(key));
  if (const auto* b = std::get_if<bool>(value)) return *b;
  return bad(key, "must be a bool");
}

result<std::string_view> GgufMetadata::string(std::string_view key) const {
  BATON_TRY(const GgufValue* value, require(key));
  if (const auto* text = std::get_if<std::string_view>(value)) return *text;
  return bad(key, "must be a string");
}

result<GgufArray> GgufMetadata::array(std::string_view key) const {
  BATON_TRY(const GgufValue* value, require(key));
  if (const auto* array = std::get_if<GgufArray>(value)) return *array;
  return bad(key, "must be an array");
}

result<std::vector<std::string_view>> GgufMetadata::strings(std::string_view key) const {
  BATON_TRY(const GgufArray array, this->array(key));
  if (array.element != GgufType::kString) {
    return bad(key, fmt::format("must hold strings but holds {}", name(array.element)));
  }
  std::vector<std::string_view> out;
  out.reserve(array.count);
  ByteReader reader(array.bytes);
  std::string_view text;
  for (uint64_t size; reader.read(&size) && reader.text(size, &text);) out.push_back(text);
  return out;
}

result<std::vector<int64_t>> GgufMetadata::ints(std::string_view key) const {
  BATON_TRY(const GgufArray array, this->array(key));
  switch (array.element) {
    case GgufType::kU8:
      return to_ints<uint8_t>(array);
    case GgufType::kI8:
      return to_ints<int8_t>(array);
    case GgufType::kU16:
      return to_ints<uint16_t>(array);
    case GgufType::kI16:
      return to_ints<int16_t>(array);
    case GgufType::kU32:
      return to_ints<uint32_t>(array);
    case GgufType::kI32:
      return to_ints<int32_t>(array);
    case GgufType::kI64:
      return to_ints<int64_t>(array);
    case GgufType::kU64: {
      bool fits = true;
      for_each<uint64_t>(array, [&](uint64_t v) { fits = fits && !(v >> 63); });
      if (!fits) return bad(key, "holds a number over 2^63");
      return to_ints<uint64_t>(array);
    }
    default:
      return bad(key, fmt::format("must hold integers but holds {}", name(array.element)));
  }
}

result<std::vector<float>> GgufMetadata::floats(std::string_view key) const {
  BATON_TRY(const GgufArray array, this->array(key));
  if (array.element != GgufType::kF32) {
    return bad(key, fmt::format("must hold f32 but holds {}", name(array.element)));
  }
  std::vector<float> out;
  out.reserve(array.count);
  for_each<float>(array, [&](float value) { out.push_back(value); });
  return out;
}

}  // namespace baton::formats
