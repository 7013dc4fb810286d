#include "common/formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <iterator>
#include <map>
#include <set>

#include "common/formats/byte_reader.h"
#include "common/formats/hf_json.h"
#include "common/formats/utf8.h"

// Layout (github.com/huggingface/safetensors): u64 header bytes; a JSON object {tensor: {dtype,
// shape, data_offsets: [begin, end]}, "__metadata__": {...}}; the data, to which offsets count.

namespace baton::formats {
namespace {

namespace json = boost::json;

// The largest public header has 5 MB. A parsed header takes up to twelve times its bytes.
constexpr JsonLimits kHeaderLimits{size_t{16} << 20, 8};
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxTensorNameBytes = 256;
constexpr std::string_view kMetadataKey = "__metadata__";

Error bad(std::string_view where, std::string_view reason) {
  return error(Errc::kDataCorrupt, fmt::format("{}: {}", where, reason));
}

result<StorageType> storage_type(std::string_view dtype, const std::string& where) {
  if (dtype == "F32") return StorageType::kF32;
  if (dtype == "F16") return StorageType::kF16;
  if (dtype == "BF16") return StorageType::kBF16;
  return error(Errc::kUnsupported,
               fmt::format("{}: dtype '{}' is not supported", where, printable(dtype)));
}

result<std::vector<uint64_t>> uints(const JsonFields& fields, std::string_view field,
                                    size_t max_count) {
  BATON_TRY(const json::array* array, fields.array(field));
  if (array->size() > max_count) {
    return fields.bad(field, fmt::format("has {} numbers, more than {}", array->size(), max_count));
  }
  std::vector<uint64_t> out;
  for (const json::value& value : *array) {
    if (!json_to_uint(value, &out.emplace_back())) {
      return fields.bad(field, "must hold whole numbers of at least 0");
    }
  }
  return out;
}

// `data` is the file's data section.
result<TensorView> tensor(std::string_view name, const json::value& entry,
                          std::span<const std::byte> data, const std::string& source) {
  const std::string where = fmt::format("{}: tensor '{}'", source, printable(name));
  if (name.empty() || name.size() > kMaxTensorNameBytes) {
    return bad(where,
               fmt::format("its name has {} bytes, not 1 to {}", name.size(), kMaxTensorNameBytes));
  }
  BATON_TRY(const JsonFields fields, JsonFields::root(entry, where));
  TensorView view;
  view.name = name;
  BATON_TRY(const std::string_view dtype, fields.string("dtype"));
  BATON_TRY(view.type, storage_type(dtype, where));
  BATON_TRY(view.shape, uints(fields, "shape", kMaxDims));
  BATON_TRY(const uint64_t bytes, tensor_bytes(view.type, view.shape, where));
  BATON_TRY(const std::vector<uint64_t> offsets, uints(fields, "data_offsets", 2));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return fields.bad("data_offsets", "must be a begin and an end");
  }
  if (offsets[1] > data.size()) {
    return bad(where, fmt::format("ends at byte {} but the file has only {} bytes of data",
                                  offsets[1], data.size()));
  }
  if (offsets[1] - offsets[0] != bytes) {
    return bad(where,
               fmt::format("has {} bytes of data but {} {} needs {}", offsets[1] - offsets[0],
                           formats::name(view.type), shape_text(view.shape), bytes));
  }
  view.data = data.subspan(offsets[0], bytes);
  return view;
}

// Tensors that neither overlap nor cover all of the data leave a hole: room for a second file.
status check_covered(std::span<const TensorView> tensors, std::span<const std::byte> data,
                     const std::string& source) {
  BATON_CHECK_OK(check_no_overlap(tensors, source));
  uint64_t covered = 0;
  for (const TensorView& view : tensors) covered += view.data.size();
  if (covered == data.size()) return {};
  return bad(source, fmt::format("{} of {} bytes of data belong to no tensor",
                                 data.size() - covered, data.size()));
}

result<std::vector<TensorView>> read_header(const MappedFile& file) {
  const std::string& source = file.path();
  ByteReader reader(file.bytes());
  uint64_t header_bytes = 0;
  std::string_view text;
  if (!reader.read(&header_bytes)) return bad(source, "too short to be a safetensors file");
  if (header_bytes > kHeaderLimits.max_bytes) {
    return bad(source, fmt::format("not a safetensors file: a header of {} bytes is more than "
                                   "the {} allowed",
                                   header_bytes, kHeaderLimits.max_bytes));
  }
  if (!reader.text(header_bytes, &text)) {
    return bad(source, fmt::format("truncated in the header: {} bytes are announced but {} are "
                                   "there",
                                   header_bytes, reader.remaining()));
  }
  BATON_TRY(const json::value header,
            parse_json(text, fmt::format("{}: header", source), kHeaderLimits));
  BATON_TRY(const JsonFields root, JsonFields::root(header, fmt::format("{}: header", source)));
  const std::span<const std::byte> data = file.bytes().subspan(reader.offset());
  std::vector<TensorView> tensors;
  for (const auto& member : root.object()) {
    const std::string_view name(member.key().data(), member.key().size());
    if (name == kMetadataKey) continue;
    BATON_TRY(TensorView view, tensor(name, member.value(), data, source));
    tensors.push_back(std::move(view));
  }
  BATON_CHECK_OK(check_covered(tensors, data, source));
  return tensors;
}

status append_file(const std::filesystem::path& path, std::vector<MappedFile>* maps,
                   std::vector<TensorView>* tensors) {
  BATON_TRY(MappedFile map, MappedFile::open(path));
  BATON_TRY(std::vector<TensorView> found, read_header(map));
  maps->push_back(std::move(map));
  std::move(found.begin(), found.end(), std::back_inserter(*tensors));
  return {};
}

result<TensorFile> open_single(const std::filesystem::path& path) {
  std::vector<MappedFile> maps;
  std::vector<TensorView> tensors;
  BATON_CHECK_OK(append_file(path, &maps, &tensors));
  return TensorFile::create(std::move(maps), std::move(tensors));
}

// A shard is a file beside the index: a name with a path in it could reach any file.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.size() <= 255 &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

using WeightMap = std::map<std::string, std::vector<std::string>>;  // shard → its tensors

result<WeightMap> read_index(const std::filesystem::path& index) {
  BATON_TRY(const json::value value, read_json_file(index, kHeaderLimits));
  BATON_TRY(const JsonFields root, JsonFields::root(value, index.string()));
  BATON_TRY(const JsonFields map, root.fields("weight_map"));
  WeightMap shards;
  for (const auto& member : map.object()) {
    const std::string_view name(member.key().data(), member.key().size());
    BATON_TRY(const std::string_view shard, map.string(name));
    if (!is_plain_file_name(shard)) {
      return map.bad(name, fmt::format("names the shard '{}', which is not a plain file name",
                                       printable(shard)));
    }
    shards[std::string(shard)].emplace_back(name);
  }
  if (shards.empty()) return root.bad("weight_map", "names no tensor");
  return shards;
}

result<TensorFile> open_sharded(const std::filesystem::path& index) {
  BATON_TRY(const WeightMap shards, read_index(index));
  std::vector<MappedFile> maps;
  std::vector<TensorView> tensors;
  for (const auto& [shard, names] : shards) {
    const size_t first = tensors.size();
    const status opened = append_file(index.parent_path() / shard, &maps, &tensors);
    if (!opened && opened.error().code == Errc::kNotFound) {
      return error(Errc::kNotFound,
                   fmt::format("{}: the shard '{}' is missing", index.string(), printable(shard)));
    }
    BATON_CHECK_OK(opened);
    std::set<std::string_view> present;
    for (size_t i = first; i < tensors.size(); ++i) present.insert(tensors[i].name);
    for (const std::string& name : names) {
      if (present.count(name)) continue;
      return error(Errc::kNotFound, fmt::format("{}: tensor '{}' is not in the shard '{}'",
                                                index.string(), printable(name), printable(shard)));
    }
  }
  return TensorFile::create(std::move(maps), std::move(tensors));
}

}  // namespace

result<TensorFile> open_safetensors(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::is_directory(path, ec)) return open_single(path);
  const std::filesystem::path index = path / "model.safetensors.index.json";
  if (std::filesystem::exists(index, ec)) return open_sharded(index);
  const std::filesystem::path single = path / "model.safetensors";
  if (std::filesystem::exists(single, ec)) return open_single(single);
  return error(Errc::kNotFound,
               fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json",
                           path.string()));
}

}  // namespace baton::formats
