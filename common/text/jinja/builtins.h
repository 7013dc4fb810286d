#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/text/jinja/runtime.h"
#include "common/text/jinja/value.h"

// The names that every template knows, as Jinja and transformers define them.
namespace baton::text::jinja {

using FilterBody = result<Value> (*)(Runtime&, const Value& subject, const Arguments&);
using TestBody = result<bool> (*)(Runtime&, const Value& subject, const Arguments&);

// nullptr for a name that is not offered.
FilterBody find_text_filter(std::string_view name);
FilterBody find_sequence_filter(std::string_view name);
TestBody find_test(std::string_view name);

// kUnsupported where there is none of that name.
result<Value> apply_filter(Runtime& run, std::string_view name, const Value& subject,
                           const Arguments& arguments);
result<bool> apply_test(Runtime& run, std::string_view name, const Value& subject,
                        const Arguments& arguments);

// range, namespace, dict, raise_exception, strftime_now.
std::vector<std::pair<std::string, Value>> global_functions();

}  // namespace baton::text::jinja
