#pragma once

#include <vector>

#include "common/text/jinja/ast.h"
#include "common/text/jinja/limits.h"
#include "common/text/jinja/value.h"

// What Python does for operators, subscripts and iteration. Errors are kInvalidArgument for types
// that do not go together, kResourceExhausted beyond the budget.
namespace baton::text::jinja {

// Not for and / or, which evaluate their right side only if need be.
result<Value> binary(Budget& budget, Binary::Op op, const Value& a, const Value& b);
result<Value> negate(const Value& value);
result<bool> compare(Budget& budget, CompareOp op, const Value& a, const Value& b);
result<bool> contains(Budget& budget, const Value& container, const Value& item);

// object.name: a method first, then an entry. Undefined if there is neither.
result<Value> get_attribute(Budget& budget, const Value& object, const std::string& name);
// object[index]: an entry or element first, then a method.
result<Value> get_item(Budget& budget, const Value& object, const Value& index);
// Bounds may be undefined or none.
result<Value> slice(Budget& budget, const Value& object, const Value& start, const Value& stop,
                    const Value& step);

// What a for loop walks: elements, keys of a dict, characters; nothing for undefined.
result<std::vector<Value>> iterate(Budget& budget, const Value& value);

}  // namespace baton::text::jinja
