#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace baton::formats {

// A whole regular file mapped read-only. Move-only; the address of the bytes survives a move, so
// views into them stay good as long as some MappedFile owns the map. Thread-safe once opened.
// The kernel reads pages on first touch, so any access may block on the disk; a file that is
// truncated while it is mapped kills the process (SIGBUS): model files are replaced, not edited.
class MappedFile {
 public:
  // kNotFound where there is no such file, kIo for everything else the system refuses,
  // kInvalidArgument where it is not a regular file. An empty file maps to an empty span.
  static result<MappedFile> open(const std::filesystem::path& path);

  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
};

}  // namespace baton::formats
