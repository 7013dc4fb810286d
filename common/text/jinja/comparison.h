#pragma once

#include <string_view>
#include <vector>

#include "common/text/jinja/limits.h"
#include "common/text/jinja/value.h"

// Values compared as Python compares them. Every comparison is charged to the budget by what it
// looks at: errors are kResourceExhausted beyond it.
namespace baton::text::jinja {

using Entries = std::vector<std::pair<Value, Value>>;

// a == b.
result<bool> equal(Budget& budget, const Value& a, const Value& b);

// -1, 0, 1, or 2 if neither is less (NaN). kInvalidArgument if Python cannot order the two.
result<int> order(Budget& budget, const Value& a, const Value& b);

// Where the first that equals `wanted` is; the size of `items` or `entries` if there is none.
result<size_t> index_of(Budget& budget, const std::vector<Value>& items, const Value& wanted);
result<size_t> index_of_key(Budget& budget, const Entries& entries, const Value& key);

// Of a dict; nullptr if there is no such key.
result<const Value*> find(Budget& budget, const Value& dict, const Value& key);
result<const Value*> find(Budget& budget, const Value& dict, std::string_view key);

}  // namespace baton::text::jinja
