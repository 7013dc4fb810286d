#include "common/formats/utf8.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>

namespace baton::formats {
namespace {

// Bytes of the character at the front of `text`, which is not empty; 0 if it is not one.
size_t character_bytes(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  size_t size = 0;
  uint8_t low = 0x80, high = 0xbf;  // of the second byte
  if (lead >= 0xc2 && lead <= 0xdf) {
    size = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    size = 3;
    if (lead == 0xe0) low = 0xa0;   // overlong
    if (lead == 0xed) high = 0x9f;  // surrogates
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    size = 4;
    if (lead == 0xf0) low = 0x90;   // overlong
    if (lead == 0xf4) high = 0x8f;  // over U+10FFFF
  } else {
    return 0;
  }
  if (text.size() < size || at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < size; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  return size;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t size = character_bytes(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string printable(std::string_view text) {
  constexpr size_t kMaxBytes = 64;
  std::string out;
  size_t used = 0;
  while (used < text.size()) {
    const size_t size = character_bytes(text.substr(used));
    const auto byte = static_cast<uint8_t>(text[used]);
    if (used + size > kMaxBytes || used >= kMaxBytes) return out + "...";
    const bool plain = size > 1 || (size == 1 && byte >= 0x20 && byte != 0x7f);
    if (plain) {
      out += text.substr(used, size);
    } else {
      out += fmt::format("\\x{:02x}", byte);
    }
    used += plain ? size : 1;
  }
  return out;
}

}  // namespace baton::formats
