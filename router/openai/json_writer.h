#pragma once

#include <string>
#include <string_view>

// JSON is written straight into the buffer that goes to the socket: a tree a token would cost more
// than the token.
namespace baton::router {

// `text` (UTF-8) as a JSON string with its quotes. Malformed bytes become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
// `null` where it is empty.
void append_json_string_or_null(std::string& out, std::string_view text);
// The bytes of `text` as a JSON array of numbers.
void append_json_bytes(std::string& out, std::string_view text);
// Shortest form that reads back equal; -9999 for minus infinity and NaN, as clients expect of a log
// probability.
void append_json_float(std::string& out, float value);

}  // namespace baton::router
