#pragma once

#include <string>

#include "common/base/result.h"

namespace baton::cli {

// A secret for a cluster of this process's children, drawn now: a file in memory without a name,
// under the path that they open it at. It is theirs by inheritance, lives as long as this process,
// and never lies on a disk.
result<std::string> draw_secret_file();

}  // namespace baton::cli
