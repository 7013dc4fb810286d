#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/formats/storage_type.h"

namespace baton::fakes {

// Makes safetensors files for tests, right ones and, by the public fields, wrong ones.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;  // as in the file
    std::vector<uint64_t> shape;
    std::string data;
    std::optional<std::pair<uint64_t, uint64_t>> offsets;  // instead of the next ones
  };

  SafetensorsWriter& add(std::string name, formats::StorageType type, std::vector<uint64_t> shape,
                         std::string data);
  Tensor& tensor(const std::string& name);  // it must be there

  std::string header() const;  // the JSON, padded to 8 bytes as the reference writer does
  std::string bytes() const;
  void write(const std::filesystem::path& path) const;

  std::vector<Tensor> tensors;
  std::optional<std::string> json;       // instead of the header
  std::optional<uint64_t> header_bytes;  // instead of its size
};

// model.safetensors.index.json for tensor → shard.
std::string safetensors_index(const std::map<std::string, std::string>& weight_map);

}  // namespace baton::fakes
