#include "cli/api_keys.h"

#include <utility>

#include "common/base/secret_lines.h"

namespace baton::cli {

result<std::vector<std::string>> read_api_keys(const std::string& path) {
  if (path.empty()) return std::vector<std::string>();
  auto keys = read_secret_lines(path);
  if (!keys) {
    return error(keys.error().code, "the keys in '" + path + "': " + keys.error().message);
  }
  if (keys->empty()) return error(Errc::kInvalidArgument, "no key in '" + path + "'");
  return std::move(*keys);
}

}  // namespace baton::cli
