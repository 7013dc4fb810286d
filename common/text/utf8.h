#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace baton::text {

// U+FFFD, what stands for bytes that are not text.
inline constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// What lies at the front of some bytes.
struct Utf8Step {
  enum class Kind : uint8_t {
    kCharacter,   // `bytes` bytes are the character `code`
    kInvalid,     // `bytes` bytes can be no character: one U+FFFD stands for them
    kIncomplete,  // all `bytes` bytes there are begin a character that later bytes may finish
  };
  Kind kind = Kind::kInvalid;
  uint8_t bytes = 0;
  char32_t code = 0;
};

// `text` is not empty. Invalid bytes are cut as Unicode recommends (the maximal subpart), which is
// what Rust's and Python's lossy decoders do.
Utf8Step next_utf8(std::string_view text);

// The offset of the first byte that is not well-formed UTF-8.
std::optional<size_t> find_invalid_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code);

// Bytes of a character by its first byte, which must be well-formed text's.
inline size_t utf8_length(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// Python's str.isspace() and what str.strip() removes.
bool is_python_space(char32_t code);

}  // namespace baton::text
