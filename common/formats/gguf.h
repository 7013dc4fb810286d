#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "common/base/result.h"
#include "common/formats/mapped_file.h"
#include "common/formats/tensor_file.h"

namespace baton::formats {

// The value types of GGUF metadata, numbered as in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
std::string_view name(GgufType type);

// An array as it lies in the file; checked when the file was opened (bounds, UTF-8, booleans), so
// that an array nobody asks for costs no memory.
struct GgufArray {
  GgufType element = GgufType::kU8;  // never kArray
  uint64_t count = 0;
  std::span<const std::byte> bytes;
};

// Unsigned and signed integers keep their sign only; f32 and f64 become double, exactly.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;

// The key-value pairs of a GGUF file. Strings point into the map of the file they came from.
// Getters: kNotFound for a missing key, kDataCorrupt for one of another type or out of range; the
// sentence names file and key.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string source = {}) : source_(std::move(source)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const GgufValue* find(std::string_view key) const;  // nullptr if missing
  size_t size() const { return values_.size(); }

  result<uint64_t> uint(std::string_view key) const;  // any integer type, not negative
  result<double> number(std::string_view key) const;  // f32 or f64 that is finite
  result<bool> boolean(std::string_view key) const;
  result<std::string_view> string(std::string_view key) const;
  // These allocate what the array holds.
  result<std::vector<std::string_view>> strings(std::string_view key) const;
  result<std::vector<int64_t>> ints(std::string_view key) const;  // any integer type that fits
  result<std::vector<float>> floats(std::string_view key) const;  // an array of f32

  // "FILE: key 'k' REASON", for callers that check more than the type.
  Error bad(std::string_view key, std::string_view reason) const;
  // For the reader. False if the key is there already.
  bool add(std::string_view key, GgufValue value);

 private:
  result<const GgufValue*> require(std::string_view key) const;
  result<GgufArray> array(std::string_view key) const;

  std::string source_;
  std::unordered_map<std::string_view, GgufValue> values_;
};

// A GGUF file, version 2 or 3, little-endian: metadata and tensors, wholly checked at open.
// Move-only; everything points into the map that it owns. Immutable, so any thread may read it.
class GgufFile {
 public:
  // MappedFile's errors; kDataCorrupt for a file that cannot be what it says; kUnsupported for
  // another version, byte order or tensor type. Reads the header only, blocking on the disk.
  static result<GgufFile> open(const std::filesystem::path& path);

  const GgufMetadata& metadata() const { return metadata_; }
  const TensorFile& tensors() const { return tensors_; }
  // Magic to the last tensor entry: all of the file but padding and data.
  std::span<const std::byte> header() const { return header_; }
  TensorFile take_tensors() && { return std::move(tensors_); }

 private:
  GgufFile() = default;

  TensorFile tensors_;
  GgufMetadata metadata_;
  std::span<const std::byte> header_;
};

}  // namespace baton::formats
