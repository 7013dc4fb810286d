#pragma once

#include <string_view>

#include "common/text/jinja/strings.h"
#include "common/text/jinja/value.h"

namespace baton::text::jinja {

// receiver.name as a callable; undefined if that type has no such method here.
// kResourceExhausted where the receiver nests too deep already.
result<Value> method(const Value& receiver, std::string_view name);

// text.strip(chars), charged to the budget; white space where `chars` is undefined or none.
result<Value> strip_value(Runtime& run, std::string_view text, const Value& chars, Side side);

}  // namespace baton::text::jinja
