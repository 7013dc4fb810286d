#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace baton::text {

// Byte-level vocabularies write each byte as one printable character (GPT-2's table: printable
// Latin-1 as itself, the other 68 bytes from U+0100 on). Nothing if a character is not of the
// table.
std::optional<std::string> bytes_of_byte_level(std::string_view token);

// SentencePiece's space, U+2581.
inline constexpr std::string_view kMetaspace = "\xe2\x96\x81";
// The byte that a SentencePiece token <0x00> to <0xFF> stands for; nothing for other tokens.
std::optional<uint8_t> byte_of_token(std::string_view token);

}  // namespace baton::text
