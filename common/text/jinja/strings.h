#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Python's str operations on UTF-8: positions and lengths count code points.
namespace baton::text::jinja {

size_t length(std::string_view text);
// The code points, each as its own bytes.
std::vector<std::string_view> characters(std::string_view text);

enum class Side : uint8_t { kLeft, kRight, kBoth };
// str.strip(): removes characters that are in `chars`, or white space without it.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Side side);

// str.split(): at `separator` (not empty), or at runs of white space without it; at most
// `max_splits` times where that is not negative.
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t max_splits);
std::vector<std::string_view> split_lines(std::string_view text);

// By simple case mappings: one character stays one character.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
// str.title(): the first letter of each run of letters.
std::string title(std::string_view text);
// Jinja's filter title: the first character after each white space or one of -({[<.
std::string title_words(std::string_view text);

// At most `max_count` times where that is not negative. `replaced_bytes` says the size before.
std::string replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t max_count);
size_t replaced_bytes(std::string_view text, std::string_view from, std::string_view to);
// std::string_view::find() in linear time, whatever the two are.
size_t find_text(std::string_view text, std::string_view part);
// How often `part`, which may be empty, occurs without overlap.
size_t count(std::string_view text, std::string_view part);

}  // namespace baton::text::jinja
