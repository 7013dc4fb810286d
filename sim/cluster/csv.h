#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace baton::sim {

// A whole file of at most 1 GiB. kIo, kInvalidArgument; they name it.
result<std::string> read_text(const std::filesystem::path& path);

// Lines of fields between commas, without quotes; a line may end in CR LF, the last one in nothing,
// and one without anything in it is skipped. Errors name the file and the line.
class CsvReader {
 public:
  CsvReader(std::string_view text, std::string_view from) : rest_(text), from_(from) {}

  // The next line; false: there is none. kInvalidArgument: it is over 1 MiB.
  result<bool> next();
  std::string_view line() const { return line_; }
  uint64_t line_number() const { return number_; }
  size_t num_fields() const { return fields_.size(); }
  std::string_view field(size_t i) const { return fields_[i]; }

  status expect_fields(size_t count) const;
  // A field that is there: a whole number of at most `most`, or any finite one.
  result<uint64_t> whole(size_t field, uint64_t most) const;
  result<double> number(size_t field) const;

  Error bad(std::string_view what) const;

 private:
  std::string_view rest_;
  const std::string_view from_;
  std::string_view line_;
  uint64_t number_ = 0;
  std::vector<std::string_view> fields_;
};

}  // namespace baton::sim
