#include "common/base/record_file.h"

#include <cerrno>
#include <cstring>

#include "common/base/log.h"

namespace baton {

result<RecordFile> RecordFile::create(const std::filesystem::path& path, std::string_view header,
                                      uint64_t most_lines) {
  RecordFile out;
  out.path_ = path.string();
  out.file_.reset(std::fopen(out.path_.c_str(), "we"));
  if (!out.file_) {
    return error(Errc::kIo, "cannot write " + out.path_ + ": " + std::strerror(errno));
  }
  out.lines_left_ = most_lines + 1;
  out.add(header);
  return out;
}

void RecordFile::add(std::string_view line) {
  if (!file_) return;
  if (lines_left_ == 0) {
    LOG_WARN("{} is full: what comes now is not recorded", path_);
    return file_.reset();
  }
  --lines_left_;
  std::FILE* const file = file_.get();
  if (std::fwrite(line.data(), 1, line.size(), file) == line.size() &&
      std::fputc('\n', file) >= 0) {
    return;
  }
  LOG_WARN("cannot write {}: {}", path_, std::strerror(errno));
  file_.reset();
}

}  // namespace baton
