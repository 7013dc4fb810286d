#include "common/formats/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <unordered_set>

#include "common/formats/hf_json.h"
#include "common/formats/utf8.h"

namespace baton::formats {
namespace {

// An empty map where there is no such file.
result<MappedFile> open_if_there(const std::filesystem::path& path) {
  result<MappedFile> file = MappedFile::open(path);
  if (!file && file.error().code == Errc::kNotFound) return MappedFile();
  return file;
}

result<boost::json::value> parse(const MappedFile& file, const JsonLimits& limits = {}) {
  return parse_json(file.text(), file.path(), limits);
}

// The root of a parsed file, or nothing for the null that stands for a file that is not there.
result<std::optional<JsonFields>> optional_root(const boost::json::value& value,
                                                const MappedFile& file) {
  if (file.path().empty()) return std::optional<JsonFields>();
  BATON_TRY(JsonFields root, JsonFields::root(value, file.path()));
  return std::optional<JsonFields>(std::move(root));
}

result<boost::json::value> parse_if_there(const MappedFile& file, const JsonLimits& limits = {}) {
  if (file.path().empty()) return boost::json::value();
  return parse(file, limits);
}

// What a file may hold beside the roles: older checkpoints stored RoPE's frequencies, which follow
// from the configuration, and some store the head although it is tied.
bool is_ignorable(std::string_view tensor, const ModelConfig& config) {
  return tensor.ends_with(".rotary_emb.inv_freq") ||
         (config.tie_embeddings && tensor == "lm_head.weight");
}

result<ModelConfig> config_of_directory(const std::filesystem::path& path,
                                        const MappedFile& config_file) {
  BATON_TRY(const MappedFile generation_file, open_if_there(path / "generation_config.json"));
  BATON_TRY(const MappedFile tokenizer_file, open_if_there(path / "tokenizer_config.json"));
  BATON_TRY(const boost::json::value config, parse(config_file));
  BATON_TRY(const JsonFields fields, JsonFields::root(config, config_file.path()));
  BATON_TRY(const boost::json::value generation, parse_if_there(generation_file));
  BATON_TRY(const auto generation_fields, optional_root(generation, generation_file));
  BATON_TRY(const boost::json::value tokenizer,
            parse_if_there(tokenizer_file, kTokenizerJsonLimits));
  BATON_TRY(const auto tokenizer_fields, optional_root(tokenizer, tokenizer_file));
  return model_config_from_hf(fields, generation_fields, tokenizer_fields);
}

status check_factors(const TensorView& tensor, const std::string& source) {
  if (tensor.type == StorageType::kF32) {
    std::vector<float> factors(tensor.elements());
    dequantize(tensor.type, tensor.data, factors);
    if (std::all_of(factors.begin(), factors.end(),
                    [](float f) { return std::isfinite(f) && f > 0; })) {
      return {};
    }
  }
  return error(Errc::kDataCorrupt,
               fmt::format("{}: tensor '{}': must hold F32 factors that are finite and over 0",
                           source, printable(tensor.name)));
}

}  // namespace

result<ModelConfig> read_model_config(const std::filesystem::path& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    BATON_TRY(const MappedFile config_file, MappedFile::open(path / "config.json"));
    return config_of_directory(path, config_file);
  }
  BATON_TRY(const GgufFile file, GgufFile::open(path));
  return model_config_from_gguf(file);
}

result<ModelFiles> ModelFiles::open(const std::filesystem::path& path) {
  ModelFiles files;
  files.path_ = path;
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    BATON_CHECK_OK(files.open_directory());
  } else {
    BATON_CHECK_OK(files.open_gguf());
  }
  BATON_CHECK_OK(files.check_tensors());
  BATON_CHECK_OK(files.check_no_strangers());
  return files;
}

status ModelFiles::open_gguf() {
  BATON_TRY(gguf_, GgufFile::open(path_));
  BATON_TRY(config_, model_config_from_gguf(*gguf_));
  fingerprint_ = formats::fingerprint(gguf_->header(), gguf_->tensors().tensors());
  return {};
}

status ModelFiles::open_directory() {
  BATON_TRY(const MappedFile config_file, MappedFile::open(path_ / "config.json"));
  BATON_TRY(tokenizer_json_, open_if_there(path_ / "tokenizer.json"));
  BATON_TRY(config_, config_of_directory(path_, config_file));
  BATON_TRY(weights_, TensorFile::open(path_));
  fingerprint_ = formats::fingerprint(config_file.bytes(), weights_.tensors());
  return {};
}

status ModelFiles::check_tensors() const {
  for (const TensorRole role : all_tensor_roles()) {
    const uint32_t layers = is_per_layer(role) ? config_.num_layers : 1;
    for (uint32_t layer = 0; layer < layers; ++layer) BATON_CHECK_OK(check_tensor(role, layer));
  }
  return {};
}

status ModelFiles::check_tensor(TensorRole role, uint32_t layer) const {
  const std::string tensor_name = formats::tensor_name(source(), role, layer);
  const TensorView* tensor = find(role, layer);
  if (!tensor) {
    if (!is_required(config_, role)) return {};
    return error(Errc::kNotFound,
                 fmt::format("{}: tensor '{}' is missing", path_.string(), tensor_name));
  }
  const std::vector<uint64_t> expected = tensor_shape(config_, role);
  if (tensor->shape != expected) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{}: tensor '{}': shape {} is not the {} that the configuration asks "
                             "for",
                             source_of(*tensor), printable(tensor->name), shape_text(tensor->shape),
                             shape_text(expected)));
  }
  if (role == TensorRole::kRopeFactors) return check_factors(*tensor, source_of(*tensor));
  return {};
}

// A tensor that no role asks for would be left out of the computation in silence: a bias, a norm or
// an adapter that this architecture does not have here.
status ModelFiles::check_no_strangers() const {
  std::unordered_set<std::string> known;
  for (const TensorRole role : all_tensor_roles()) {
    if (!is_required(config_, role) && role != TensorRole::kRopeFactors) continue;
    const uint32_t layers = is_per_layer(role) ? config_.num_layers : 1;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      known.insert(formats::tensor_name(source(), role, layer));
    }
  }
  for (const TensorView& tensor : tensors().tensors()) {
    if (known.count(tensor.name) || is_ignorable(tensor.name, config_)) continue;
    return error(
        Errc::kUnsupported,
        fmt::format("{}: tensor '{}' has no place in a {} model of {} layers", source_of(tensor),
                    printable(tensor.name), config_.architecture, config_.num_layers));
  }
  return {};
}

std::string ModelFiles::source_of(const TensorView& tensor) const {
  const std::less<> before;
  for (const MappedFile& map : tensors().maps()) {
    const std::byte* begin = map.bytes().data();
    const std::byte* end = begin + map.bytes().size();
    if (!before(tensor.data.data(), begin) && before(tensor.data.data(), end)) return map.path();
  }
  return path_.string();
}

const TensorView* ModelFiles::find(TensorRole role, uint32_t layer) const {
  if (role == TensorRole::kLmHead && config_.tie_embeddings) role = TensorRole::kEmbedding;
  return tensors().find(formats::tensor_name(source(), role, layer));
}

}  // namespace baton::formats
