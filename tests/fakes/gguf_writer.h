#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "common/formats/gguf.h"
#include "common/formats/storage_type.h"

namespace baton::fakes {

// Makes GGUF files for tests, right ones and, by the public fields, wrong ones.
class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // outermost first, as TensorView has it
    uint32_t type = 0;            // the number in the file
    std::string data;
    std::optional<uint64_t> offset;  // instead of the next aligned one
  };

  // One key; a later one of the same name replaces it.
  GgufWriter& set(std::string_view key, uint32_t value);
  GgufWriter& set(std::string_view key, float value);
  GgufWriter& set_bool(std::string_view key, bool value);
  GgufWriter& set(std::string_view key, std::string_view value);
  GgufWriter& set(std::string_view key, const std::vector<std::string>& values);
  GgufWriter& set(std::string_view key, const std::vector<int32_t>& values);
  GgufWriter& set(std::string_view key, const std::vector<float>& values);
  // The value's bytes as they lie in the file: "element type, count, elements" for an array.
  GgufWriter& set_raw(std::string_view key, uint32_t type, std::string bytes);
  GgufWriter& erase(std::string_view key);

  GgufWriter& add(std::string name, formats::StorageType type, std::vector<uint64_t> shape,
                  std::string data);
  // The tensor of that name, to change it; it must be there.
  Tensor& tensor(std::string_view name);
  GgufWriter& erase_tensor(std::string_view name);

  std::string bytes() const;
  void write(const std::filesystem::path& path) const;

  // What bytes() writes; change them to break the file.
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint32_t alignment = 32;  // of the data; written as a key only if that is set
  std::optional<uint64_t> tensor_count, key_count;

  struct Key {
    std::string name;
    uint32_t type;
    std::string bytes;
  };
  std::vector<Key> keys;
  std::vector<Tensor> tensors;
};

// The bytes of a number, little-endian.
template <class T>
std::string little_endian(T value) {
  static_assert(std::is_arithmetic_v<T>);
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// "length, bytes", as GGUF writes a string.
std::string gguf_string(std::string_view text);

// The number of a storage type in a GGUF file.
uint32_t ggml_type(formats::StorageType type);

// Replaces the file.
void write_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace baton::fakes
