#include "common/base/line_file.h"

#include <fstream>

namespace baton {

std::optional<std::vector<std::string>> read_line_file(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  if (!file.eof()) return {};
  return lines;
}

}  // namespace baton
