#pragma once

#include <filesystem>

#include "common/base/result.h"
#include "common/formats/tensor_file.h"

namespace baton::formats {

// Opens one *.safetensors file, or a directory: model.safetensors.index.json with every shard that
// it names, or else model.safetensors. F32, F16 and BF16. The headers are read and wholly checked:
// size, JSON, types, shapes, offsets that are in range, do not overlap and leave no hole, names
// that are there once, and that each tensor of the index lies in its shard. Blocks on the disk.
// MappedFile's errors; kNotFound for a missing shard; kDataCorrupt for a file that cannot be what
// it says; kUnsupported for another element type.
result<TensorFile> open_safetensors(const std::filesystem::path& path);

}  // namespace baton::formats
