#include "sim/cluster/csv.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>

namespace baton::sim {
namespace {

constexpr size_t kMaxFileBytes = 1ull << 30;
constexpr size_t kMaxLineBytes = 1u << 20;

}  // namespace

result<std::string> read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code ec;
  const auto bytes = std::filesystem::file_size(path, ec);
  if (!file || ec) return error(Errc::kIo, fmt::format("cannot read {}", path.string()));
  if (bytes > kMaxFileBytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("{}: is over {} bytes", path.string(), kMaxFileBytes));
  }
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) return error(Errc::kIo, fmt::format("cannot read {}", path.string()));
  return text;
}

result<bool> CsvReader::next() {
  do {
    ++number_;
    if (rest_.empty()) return false;
    const size_t end = rest_.find('\n');
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line_.ends_with('\r')) line_.remove_suffix(1);
  } while (line_.empty());
  if (line_.size() > kMaxLineBytes) return bad(fmt::format("is over {} bytes", kMaxLineBytes));
  fields_.clear();
  for (std::string_view left = line_;;) {
    const size_t comma = left.find(',');
    fields_.push_back(left.substr(0, comma));
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
  }
  return true;
}

status CsvReader::expect_fields(size_t count) const {
  if (fields_.size() == count) return {};
  return bad(fmt::format("has {} fields instead of {}", fields_.size(), count));
}

result<uint64_t> CsvReader::whole(size_t field, uint64_t most) const {
  const std::string_view text = fields_[field];
  uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value > most) {
    return bad(fmt::format("field {} is no whole number of at most {}", field + 1, most));
  }
  return value;
}

result<double> CsvReader::number(size_t field) const {
  const std::string_view text = fields_[field];
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return bad(fmt::format("field {} is no number", field + 1));
  }
  return value;
}

Error CsvReader::bad(std::string_view what) const {
  return error(Errc::kInvalidArgument, fmt::format("{}: line {} {}", from_, number_, what));
}

}  // namespace baton::sim
