#pragma once

#include <string>
#include <vector>

#include "common/base/result.h"

namespace baton::cli {

// The API keys in a file: one a line; blank lines and those that start with '#' are none. Empty if
// `path` is empty. An error names the file: also one without a key, and one that everybody may
// read.
result<std::vector<std::string>> read_api_keys(const std::string& path);

}  // namespace baton::cli
