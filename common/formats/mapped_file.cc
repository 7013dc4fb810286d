#include "common/formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "common/base/descriptor.h"

namespace baton::formats {
namespace {

Error system_error(const std::string& path, std::string_view what, int code) {
  const Errc errc = code == ENOENT || code == ENOTDIR ? Errc::kNotFound : Errc::kIo;
  return error(errc,
               fmt::format("{}: cannot {}: {}", path, what, std::generic_category().message(code)));
}

}  // namespace

result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  MappedFile file;
  file.path_ = path.string();
  // O_NONBLOCK: a FIFO of this name must be refused below, not waited for.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return system_error(file.path_, "open the file", errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error(file.path_, "stat the file", errno);
  if (!S_ISREG(info.st_mode)) {
    return error(Errc::kInvalidArgument, fmt::format("{}: not a regular file", file.path_));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return file;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) return system_error(file.path_, "map the file", errno);
  file.bytes_ = {static_cast<const std::byte*>(data), size};
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(path_, other.path_);
  return *this;
}

}  // namespace baton::formats
