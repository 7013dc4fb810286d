#pragma once

#include <string>
#include <string_view>

namespace baton::formats {

// Well-formed UTF-8 as Unicode defines it: no overlong form, no surrogate, nothing over U+10FFFF.
bool is_utf8(std::string_view text);

// `text` fit for an error sentence: at most 64 bytes of it, every byte that is not printable ASCII
// or part of well-formed UTF-8 as \xNN.
std::string printable(std::string_view text);

}  // namespace baton::formats
