#include "tests/fakes/gguf_writer.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace baton::fakes {
namespace {

using formats::GgufType;

uint32_t number(GgufType type) { return static_cast<uint32_t>(type); }

std::string array_header(GgufType element, size_t count) {
  return little_endian(number(element)) + little_endian(uint64_t{count});
}

template <class T>
std::string array_bytes(GgufType element, const std::vector<T>& values) {
  std::string out = array_header(element, values.size());
  for (const T& value : values) out += little_endian(value);
  return out;
}

void pad(std::string* out, size_t alignment) {
  if (alignment == 0) return;
  while (out->size() % alignment != 0) out->push_back('\0');
}

}  // namespace

std::string gguf_string(std::string_view text) {
  return little_endian(uint64_t{text.size()}) + std::string(text);
}

uint32_t ggml_type(formats::StorageType type) {
  for (uint32_t number = 0; number < 64; ++number) {
    if (formats::storage_type_from_ggml(number) == type) return number;
  }
  throw std::invalid_argument("no GGUF type");
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

GgufWriter& GgufWriter::set(std::string_view key, uint32_t value) {
  return set_raw(key, number(GgufType::kU32), little_endian(value));
}
GgufWriter& GgufWriter::set(std::string_view key, float value) {
  return set_raw(key, number(GgufType::kF32), little_endian(value));
}
GgufWriter& GgufWriter::set_bool(std::string_view key, bool value) {
  return set_raw(key, number(GgufType::kBool), little_endian(static_cast<uint8_t>(value)));
}
GgufWriter& GgufWriter::set(std::string_view key, std::string_view value) {
  return set_raw(key, number(GgufType::kString), gguf_string(value));
}
GgufWriter& GgufWriter::set(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = array_header(GgufType::kString, values.size());
  for (const std::string& value : values) bytes += gguf_string(value);
  return set_raw(key, number(GgufType::kArray), std::move(bytes));
}
GgufWriter& GgufWriter::set(std::string_view key, const std::vector<int32_t>& values) {
  return set_raw(key, number(GgufType::kArray), array_bytes(GgufType::kI32, values));
}
GgufWriter& GgufWriter::set(std::string_view key, const std::vector<float>& values) {
  return set_raw(key, number(GgufType::kArray), array_bytes(GgufType::kF32, values));
}

GgufWriter& GgufWriter::set_raw(std::string_view key, uint32_t type, std::string bytes) {
  erase(key);
  keys.push_back({std::string(key), type, std::move(bytes)});
  return *this;
}

GgufWriter& GgufWriter::erase(std::string_view key) {
  std::erase_if(keys, [&](const Key& k) { return k.name == key; });
  return *this;
}

GgufWriter& GgufWriter::add(std::string name, formats::StorageType type,
                            std::vector<uint64_t> shape, std::string data) {
  tensors.push_back({std::move(name), std::move(shape), ggml_type(type), std::move(data), {}});
  return *this;
}

GgufWriter::Tensor& GgufWriter::tensor(std::string_view name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == name; });
  if (it == tensors.end()) throw std::invalid_argument("no tensor " + std::string(name));
  return *it;
}

GgufWriter& GgufWriter::erase_tensor(std::string_view name) {
  std::erase_if(tensors, [&](const Tensor& t) { return t.name == name; });
  return *this;
}

std::string GgufWriter::bytes() const {
  std::string out = magic + little_endian(version) +
                    little_endian(tensor_count.value_or(tensors.size())) +
                    little_endian(key_count.value_or(keys.size()));
  for (const Key& key : keys) out += gguf_string(key.name) + little_endian(key.type) + key.bytes;
  std::string data;
  for (const Tensor& t : tensors) {
    out += gguf_string(t.name) + little_endian(static_cast<uint32_t>(t.shape.size()));
    for (auto dim = t.shape.rbegin(); dim != t.shape.rend(); ++dim) out += little_endian(*dim);
    out += little_endian(t.type) + little_endian(t.offset.value_or(data.size()));
    data += t.data;
    pad(&data, alignment);
  }
  pad(&out, alignment);
  return out + data;
}

void GgufWriter::write(const std::filesystem::path& path) const { write_file(path, bytes()); }

}  // namespace baton::fakes
