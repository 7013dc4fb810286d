#pragma once

#include <string_view>

#include "common/text/jinja/value.h"

namespace baton::text::jinja {

// receiver.name as a callable; undefined if that type has no such method here.
// kResourceExhausted where the receiver nests too deep already.
result<Value> method(const Value& receiver, std::string_view name);

}  // namespace baton::text::jinja
