#include "cli/api_keys.h"

#include <fstream>

namespace baton::cli {

result<std::vector<std::string>> read_api_keys(const std::string& path) {
  std::vector<std::string> keys;
  if (path.empty()) return keys;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line[0] != '#') keys.push_back(line);
  }
  if (!file.eof()) return error(Errc::kIo, "cannot read the keys in '" + path + "'");
  if (keys.empty()) return error(Errc::kInvalidArgument, "no key in '" + path + "'");
  return keys;
}

}  // namespace baton::cli
