#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace baton {

// A file of figures for whoever asked for them: a header, then a line for each thing that happened.
// What is added is buffered, so that now and then a call waits for the disk. It has a bound: what
// comes later is left out, and that is logged once, as is a disk that takes no more. One thread.
class RecordFile {
 public:
  static constexpr uint64_t kMostLines = 1'000'000;

  // Replaces what is there. kIo.
  static result<RecordFile> create(const std::filesystem::path& path, std::string_view header,
                                   uint64_t most_lines = kMostLines);

  void add(std::string_view line);  // without its end

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;  // null: it takes no more
  uint64_t lines_left_ = 0;
};

}  // namespace baton
