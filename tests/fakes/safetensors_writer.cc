#include "tests/fakes/safetensors_writer.h"

#include <algorithm>
#include <boost/json.hpp>
#include <stdexcept>

#include "tests/fakes/gguf_writer.h"

namespace baton::fakes {

namespace json = boost::json;

SafetensorsWriter& SafetensorsWriter::add(std::string name, formats::StorageType type,
                                          std::vector<uint64_t> shape, std::string data) {
  tensors.push_back(
      {std::move(name), std::string(formats::name(type)), std::move(shape), std::move(data), {}});
  return *this;
}

SafetensorsWriter::Tensor& SafetensorsWriter::tensor(const std::string& name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.name == name; });
  if (it == tensors.end()) throw std::invalid_argument("no tensor " + name);
  return *it;
}

std::string SafetensorsWriter::header() const {
  if (json) return *json;
  json::object root;
  root["__metadata__"] = json::object{{"format", "pt"}};
  uint64_t at = 0;
  for (const Tensor& t : tensors) {
    const auto [begin, end] = t.offsets.value_or(std::pair(at, at + t.data.size()));
    at += t.data.size();
    root[t.name] = json::object{{"dtype", t.dtype},
                                {"shape", json::value_from(t.shape)},
                                {"data_offsets", json::array{begin, end}}};
  }
  std::string text = json::serialize(root);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

std::string SafetensorsWriter::bytes() const {
  const std::string text = header();
  std::string out = little_endian(header_bytes.value_or(text.size())) + text;
  for (const Tensor& t : tensors) out += t.data;
  return out;
}

void SafetensorsWriter::write(const std::filesystem::path& path) const {
  write_file(path, bytes());
}

std::string safetensors_index(const std::map<std::string, std::string>& weight_map) {
  json::object map;
  for (const auto& [tensor, shard] : weight_map) map[tensor] = shard;
  return json::serialize(json::object{{"metadata", json::object()}, {"weight_map", map}});
}

}  // namespace baton::fakes
