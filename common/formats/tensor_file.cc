#include "common/formats/tensor_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "common/formats/gguf.h"
#include "common/formats/safetensors.h"

namespace baton::formats {

uint64_t TensorView::elements() const {
  uint64_t n = 1;
  for (const uint64_t dim : shape) n *= dim;
  return n;
}

std::string shape_text(std::span<const uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

result<TensorFile> TensorFile::open(const std::filesystem::path& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec) || path.extension() == ".safetensors") {
    return open_safetensors(path);
  }
  BATON_TRY(GgufFile gguf, GgufFile::open(path));
  return std::move(gguf).take_tensors();
}

result<TensorFile> TensorFile::create(std::vector<MappedFile> maps,
                                      std::vector<TensorView> tensors) {
  TensorFile file;
  file.maps_ = std::move(maps);
  file.tensors_ = std::move(tensors);
  file.index_.reserve(file.tensors_.size());
  for (size_t i = 0; i < file.tensors_.size(); ++i) {
    const std::string& name = file.tensors_[i].name;
    if (!file.index_.emplace(name, i).second) {
      const std::string& source = file.maps_.empty() ? name : file.maps_.front().path();
      return error(Errc::kDataCorrupt, fmt::format("{}: tensor '{}' is there twice", source, name));
    }
  }
  return file;
}

const TensorView* TensorFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

result<uint64_t> tensor_bytes(StorageType type, std::span<const uint64_t> shape,
                              std::string_view where) {
  const auto bad = [&](std::string_view reason) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{}: shape {} {}", where, shape_text(shape), reason));
  };
  uint64_t elements = 1;
  for (const uint64_t dim : shape) {
    if (dim == 0) return bad("has a dimension of 0");
    if (__builtin_mul_overflow(elements, dim, &elements)) return bad("overflows 64 bits");
  }
  const uint64_t row = shape.empty() ? 1 : shape.back();
  if (row % block_elements(type) != 0) {
    return bad(fmt::format("has rows that are not whole {} blocks of {}", name(type),
                           block_elements(type)));
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / block_elements(type), block_bytes(type), &bytes)) {
    return bad("overflows 64 bits");
  }
  return bytes;
}

status check_no_overlap(std::span<const TensorView> tensors, std::string_view source) {
  std::vector<const TensorView*> order;
  order.reserve(tensors.size());
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::less<>()(a->data.data(), b->data.data());
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const auto& before = *order[i - 1];
    if (std::less<>()(order[i]->data.data(), before.data.data() + before.data.size())) {
      return error(Errc::kDataCorrupt, fmt::format("{}: tensor '{}' overlaps tensor '{}'", source,
                                                   order[i]->name, before.name));
    }
  }
  return {};
}

}  // namespace baton::formats
