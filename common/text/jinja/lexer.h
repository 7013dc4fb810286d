#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace baton::text::jinja {

enum class TokenKind : uint8_t {
  kText,         // what is printed as it stands
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kName,
  kString,  // its value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

// The tokens of a template, the last one kEnd, with trim_blocks and lstrip_blocks in force as
// transformers sets them. Comments are gone, raw blocks are text. `source` is UTF-8.
// kDataCorrupt with "line N: REASON".
result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace baton::text::jinja
