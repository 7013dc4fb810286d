#pragma once

namespace baton::cli {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace baton::cli
