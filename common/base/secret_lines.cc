#include "common/base/secret_lines.h"

#include <fstream>

#include "common/base/private_file.h"

namespace baton {

result<std::vector<std::string>> read_secret_lines(const std::filesystem::path& path) {
  BATON_CHECK_OK(check_private(path));
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  if (!file.eof()) return error(Errc::kIo, "cannot be read");
  return lines;
}

}  // namespace baton
