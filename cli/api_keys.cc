#include "cli/api_keys.h"

#include <utility>

#include "common/base/line_file.h"

namespace baton::cli {

result<std::vector<std::string>> read_api_keys(const std::string& path) {
  if (path.empty()) return std::vector<std::string>();
  auto keys = read_line_file(path);
  if (!keys) return error(Errc::kIo, "cannot read the keys in '" + path + "'");
  if (keys->empty()) return error(Errc::kInvalidArgument, "no key in '" + path + "'");
  return std::move(*keys);
}

}  // namespace baton::cli
