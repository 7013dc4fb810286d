#include "common/text/byte_level.h"

#include <array>
#include <charconv>
#include <cstdint>

#include "common/text/utf8.h"

namespace baton::text {
namespace {

constexpr size_t kTableSize = 0x100 + 68;

// By character: its byte, or -1.
constexpr std::array<int16_t, kTableSize> make_table() {
  std::array<int16_t, kTableSize> table{};
  table.fill(-1);
  size_t next = 0x100;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    table[printable ? static_cast<size_t>(byte) : next++] = byte;
  }
  return table;
}
constexpr auto kTable = make_table();

}  // namespace

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
  std::string out;
  while (!token.empty()) {
    const Utf8Step step = next_utf8(token);
    if (step.kind != Utf8Step::Kind::kCharacter || step.code >= kTableSize ||
        kTable[step.code] < 0) {
      return std::nullopt;
    }
    out += static_cast<char>(kTable[step.code]);
    token.remove_prefix(step.bytes);
  }
  return out;
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned byte = 0;
  const char* end = token.data() + 5;
  if (std::from_chars(token.data() + 3, end, byte, 16).ptr != end) return std::nullopt;
  return static_cast<uint8_t>(byte);
}

}  // namespace baton::text
