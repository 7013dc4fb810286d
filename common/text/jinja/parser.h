#pragma once

#include <string_view>

#include "common/base/result.h"
#include "common/text/jinja/ast.h"
#include "common/text/jinja/limits.h"

namespace baton::text::jinja {

// The statements of a template. "line N: REASON" as kDataCorrupt, as kUnsupported for a tag of
// Jinja that is not offered, as kResourceExhausted beyond the limits.
result<Block> parse(std::string_view source, const Limits& limits);

}  // namespace baton::text::jinja
