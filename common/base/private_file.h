#pragma once

#include <filesystem>

#include "common/base/result.h"

namespace baton {

// A file that holds a secret is for its owner and its group alone: kInvalidArgument if everybody
// may read or write it, kIo if it is not there. The error says why, without the path.
status check_private(const std::filesystem::path& path);

}  // namespace baton
