#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "common/base/result.h"
#include "common/formats/fingerprint.h"
#include "common/formats/gguf.h"
#include "common/formats/model_config.h"
#include "common/formats/tensor_file.h"
#include "common/formats/tensor_names.h"

namespace baton::formats {

// The configuration alone, of the same kinds of path. A directory needs no weights then.
result<ModelConfig> read_model_config(const std::filesystem::path& path);

// One model on disk: a GGUF file, or a directory in Hugging Face form. After open() every tensor
// that the configuration needs is there with its shape, and none is there that has no place in it.
// Move-only; views point into the maps that it owns. Immutable, so any thread may read it.
class ModelFiles {
 public:
  // Reads headers and JSON and samples the weights (see Fingerprint); blocks on the disk. The error
  // is one sentence that names file, tensor or field, and reason.
  static result<ModelFiles> open(const std::filesystem::path& path);

  const ModelConfig& config() const { return config_; }
  const TensorFile& tensors() const { return gguf_ ? gguf_->tensors() : weights_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }

  // The tensor of that role; kLmHead gives the embedding where they are tied. nullptr only for a
  // role that is not required (is_required) or a layer that the model does not have.
  const TensorView* find(TensorRole role, uint32_t layer = 0) const;

  // The file with its metadata; nullptr for a directory.
  const GgufFile* gguf() const { return gguf_ ? &*gguf_ : nullptr; }
  // The text of that file; empty for a GGUF file and where the directory has no such file.
  std::string_view tokenizer_json() const { return tokenizer_json_.text(); }
  // As given to open(), for messages.
  const std::filesystem::path& path() const { return path_; }

 private:
  ModelFiles() = default;
  status open_gguf();
  status open_directory();
  status check_tensors() const;
  status check_tensor(TensorRole role, uint32_t layer) const;
  status check_no_strangers() const;
  std::string source_of(const TensorView& tensor) const;

  TensorSource source() const { return gguf_ ? TensorSource::kGguf : TensorSource::kHuggingFace; }

  std::filesystem::path path_;
  ModelConfig config_;
  std::optional<GgufFile> gguf_;
  TensorFile weights_;  // of a directory
  MappedFile tokenizer_json_;
  Fingerprint fingerprint_;
};

}  // namespace baton::formats
