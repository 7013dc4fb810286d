#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/result.h"

namespace baton::text::jinja {

class Value;
class Runtime;

struct None {};
// What a name without a value gives. `reason` is the error that using it raises.
struct Undefined {
  std::shared_ptr<const std::string> reason;
};

// What a call was given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Callable {
  std::string name;
  std::function<result<Value>(Runtime&, const Arguments&)> body;
  uint32_t nesting = 0;  // of the value that `body` holds
};

struct List;
struct Dict;

// A thing with attributes of its own: a namespace, a loop. The only values that change.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  // Undefined if it has none of that name.
  virtual Value attribute(std::string_view name) = 0;
  // False where attributes cannot be set.
  virtual bool set_attribute(std::string_view name, Value value) = 0;
  // Of the values it holds for as long as it lives.
  virtual uint32_t nesting() const { return 0; }
};

// A Python value as templates see it. Cheap to copy: text and containers are shared and immutable.
// How deep values hold values (bound methods and loops hold some too), and how long one would be
// if written out, is bounded: whatever walks or frees a value may recurse and ends soon, although a
// container may hold another one twice.
class Value {
 public:
  static constexpr uint32_t kMaxNesting = 100;
  static constexpr uint64_t kMaxWeight = uint64_t{64} << 20;

  Value() = default;  // undefined, without a reason
  Value(None) : held_(None{}) {}
  Value(bool v) : held_(v) {}
  Value(int64_t v) : held_(v) {}
  Value(double v) : held_(v) {}
  Value(std::string v) : held_(std::make_shared<const std::string>(std::move(v))) {}
  Value(std::string_view v) : Value(std::string(v)) {}
  Value(const char* v) : Value(std::string(v)) {}
  Value(std::shared_ptr<Object> v) : held_(std::move(v)) {}
  Value(std::shared_ptr<const Callable> v) : held_(std::move(v)) {}
  template <class T>
  Value(T*) = delete;  // would be a bool

  static Value undefined(std::string reason);
  static Value size(size_t n) { return Value(static_cast<int64_t>(n)); }
  // kResourceExhausted beyond kMaxNesting or kMaxWeight.
  static result<Value> list(std::vector<Value> items);
  static result<Value> tuple(std::vector<Value> items);
  static result<Value> dict(std::vector<std::pair<Value, Value>> items);  // keys distinct
  static result<Value> from_json(const boost::json::value& json);
  // A callable whose `body` holds `receiver`; kResourceExhausted beyond kMaxNesting.
  static result<Value> bound(const Value& receiver, Callable callable);

  bool is_undefined() const { return holds<Undefined>(); }
  bool is_none() const { return holds<None>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_int() const { return holds<int64_t>(); }
  bool is_float() const { return holds<double>(); }
  bool is_string() const { return holds<StringPtr>(); }
  bool is_list() const { return holds<ListPtr>(); }  // lists and tuples
  bool is_dict() const { return holds<DictPtr>(); }
  bool is_object() const { return holds<std::shared_ptr<Object>>(); }
  bool is_callable() const { return holds<std::shared_ptr<const Callable>>(); }
  bool same_kind(const Value& other) const { return held_.index() == other.held_.index(); }
  bool is_number() const { return is_int() || is_float() || is_bool(); }

  // The caller has asked what it is.
  bool as_bool() const { return std::get<bool>(held_); }
  int64_t as_int() const { return is_bool() ? as_bool() : std::get<int64_t>(held_); }
  double as_double() const { return is_float() ? std::get<double>(held_) : double(as_int()); }
  const std::string& as_string() const { return *std::get<StringPtr>(held_); }
  const std::vector<Value>& items() const;  // of a list or tuple
  bool is_tuple() const;
  const std::vector<std::pair<Value, Value>>& entries() const;  // of a dict, in order of insertion
  Object& object() const { return *std::get<std::shared_ptr<Object>>(held_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(held_); }
  std::string undefined_reason() const;

  // About the bytes it would have if written out: what walking all of it costs.
  uint64_t weight() const;
  // How many values hold one another here, one inside the other: what freeing it recurses.
  uint32_t nesting() const;
  // That of a value that holds `items`; kResourceExhausted beyond kMaxNesting.
  static result<uint32_t> nesting_around(std::span<const Value> items);

  // Python's bool() and type name.
  bool truthy() const;
  std::string_view type_name() const;

 private:
  using StringPtr = std::shared_ptr<const std::string>;
  using ListPtr = std::shared_ptr<const List>;
  using DictPtr = std::shared_ptr<const Dict>;

  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(held_);
  }
  static result<Value> sequence(std::vector<Value> items, bool tuple);

  std::variant<Undefined, None, bool, int64_t, double, StringPtr, ListPtr, DictPtr,
               std::shared_ptr<Object>, std::shared_ptr<const Callable>>
      held_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
  uint32_t nesting = 1;
  uint64_t weight = 0;
};
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  uint32_t nesting = 1;
  uint64_t weight = 0;
};

// What {{ value }} prints: Python's str(). `repr` is Python's repr().
std::string to_text(const Value& value);
std::string repr(const Value& value);

struct JsonStyle {
  int indent = -1;  // spaces a level; below 0: one line
  bool sort_keys = false;
  bool ensure_ascii = false;
  std::string item_separator = ", ", key_separator = ": ";
};
// Python's json.dumps(). kInvalidArgument for what JSON has no form for.
result<std::string> to_json(const Value& value, const JsonStyle& style);

}  // namespace baton::text::jinja
