#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "common/text/jinja/ast.h"
#include "common/text/jinja/limits.h"

namespace baton::text::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// The text that a template prints. `variables` are its names; `now` is what strftime_now tells.
// "line N: REASON" as kInvalidArgument (raise_exception too), kUnsupported or kResourceExhausted.
// Does not block; any number of threads may render one template.
result<std::string> render(const Block& block, Variables variables, std::chrono::local_seconds now,
                           const Limits& limits);

}  // namespace baton::text::jinja
