#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/result.h"
#include "common/formats/mapped_file.h"
#include "common/formats/storage_type.h"

namespace baton::formats {

// One tensor as it lies in the file. Every row (the last dimension) is a whole number of blocks.
// `data` has exactly the bytes of the shape, points into the map and has no alignment in general.
struct TensorView {
  std::string name;
  StorageType type = StorageType::kF32;
  std::vector<uint64_t> shape;  // outermost first: [rows, cols]; no dimension is 0
  std::span<const std::byte> data;

  uint64_t elements() const;  // cannot overflow: checked when the file was opened
};

// "[2, 3]", for messages.
std::string shape_text(std::span<const uint64_t> shape);

// The tensors of one model and the maps they lie in. Move-only; views stay good for as long as the
// object that owns them, moves included. Immutable once opened, so any thread may read it.
class TensorFile {
 public:
  // A GGUF file, a *.safetensors file, or a directory with model.safetensors or with
  // model.safetensors.index.json and its shards. Reads the headers only.
  static result<TensorFile> open(const std::filesystem::path& path);

  // For the format readers. kDataCorrupt if two tensors have one name.
  static result<TensorFile> create(std::vector<MappedFile> maps, std::vector<TensorView> tensors);

  TensorFile() = default;

  // nullptr if there is none.
  const TensorView* find(std::string_view name) const;
  std::span<const TensorView> tensors() const { return tensors_; }  // in the file's order
  std::span<const MappedFile> maps() const { return maps_; }

 private:
  std::vector<MappedFile> maps_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // views into tensors_
};

// Bytes of a tensor of that type and shape, or an error whose sentence starts with `where` and says
// what is impossible: a dimension of 0, an overflow, a row that is not whole blocks.
result<uint64_t> tensor_bytes(StorageType type, std::span<const uint64_t> shape,
                              std::string_view where);

// Refuses tensors of which two share a byte; `source` names the file in the sentence.
status check_no_overlap(std::span<const TensorView> tensors, std::string_view source);

}  // namespace baton::formats
