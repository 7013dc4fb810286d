#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.h"

namespace baton {

// The lines of a file of secrets, without blanks at their ends; blank ones and those that start
// with '#' are left out. As check_private(), and kIo if it cannot be read; without the path.
result<std::vector<std::string>> read_secret_lines(const std::filesystem::path& path);

}  // namespace baton
