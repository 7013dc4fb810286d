#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/jinja/limits.h"
#include "common/text/jinja/value.h"

namespace baton::text::jinja {

// A template chooses how many names there are: finding one must not walk them all.
using NamedValues = std::map<std::string, Value, std::less<>>;

// What one rendering carries along: the budget, the clock, the namespaces made. One thread.
class Runtime {
 public:
  Runtime(const Limits& limits, std::chrono::local_seconds now) : budget_(limits), now_(now) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Budget& budget() { return budget_; }
  std::chrono::local_seconds now() const { return now_; }
  // Only namespaces change, so only they can close a circle of references; the end of the
  // rendering empties them all.
  std::shared_ptr<Object> make_namespace(NamedValues attributes);

 private:
  Budget budget_;
  const std::chrono::local_seconds now_;
  std::vector<std::shared_ptr<class Namespace>> namespaces_;
};

// The given arguments in the order of `names`; undefined where there is none.
// kInvalidArgument for too many, for a name that is not among them and for one given twice.
result<std::vector<Value>> bind(std::string_view function, const Arguments& arguments,
                                std::initializer_list<std::string_view> names);

// The named argument; `fallback` where it is undefined. kInvalidArgument for another type.
result<int64_t> int_argument(const Value& value, std::string_view what, int64_t fallback);
result<std::string_view> string_argument(const Value& value, std::string_view what);

// str(value), charged to the budget before it is made.
result<std::string> text_of(Budget& budget, const Value& value);

// A text as value, charged to the budget.
result<Value> make_text(Budget& budget, std::string_view text);
result<Value> make_text(Budget& budget, std::string text);

}  // namespace baton::text::jinja
