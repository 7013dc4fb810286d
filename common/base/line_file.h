#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace baton {

// The lines of a file of keys, without blanks at their ends; blank ones and those that start with
// '#' are left out. Nothing if it cannot be read.
std::optional<std::vector<std::string>> read_line_file(const std::filesystem::path& path);

}  // namespace baton
