#include "common/text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::text::jinja {
namespace {

// The size of a container that is being made.
struct Size {
  uint32_t nesting = 0;
  uint64_t weight = 16;

  void add(uint32_t item_nesting, uint64_t item_weight) {
    nesting = std::max(nesting, item_nesting);
    weight = std::min(weight + item_weight, Value::kMaxWeight + 1);
  }
  status check_nesting() const {
    if (nesting < Value::kMaxNesting) return {};
    return error(Errc::kResourceExhausted,
                 fmt::format("a value nests deeper than {} values", Value::kMaxNesting));
  }
  status check() const {
    BATON_CHECK_OK(check_nesting());
    if (weight > Value::kMaxWeight) {
      return error(Errc::kResourceExhausted,
                   fmt::format("a value holds more than {} bytes", Value::kMaxWeight));
    }
    return {};
  }
};

}  // namespace

Value Value::undefined(std::string reason) {
  Value v;
  v.held_ = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return v;
}

uint32_t Value::nesting() const {
  if (const auto* list = std::get_if<ListPtr>(&held_)) return (*list)->nesting;
  if (const auto* dict = std::get_if<DictPtr>(&held_)) return (*dict)->nesting;
  if (is_object()) return object().nesting();
  return is_callable() ? callable().nesting : 0;
}

result<uint32_t> Value::nesting_around(std::span<const Value> items) {
  Size size;
  for (const Value& item : items) size.add(item.nesting(), 0);
  BATON_CHECK_OK(size.check_nesting());
  return size.nesting + 1;
}

uint64_t Value::weight() const {
  if (is_string()) return 16 + as_string().size();
  if (const auto* list = std::get_if<ListPtr>(&held_)) return (*list)->weight;
  if (const auto* dict = std::get_if<DictPtr>(&held_)) return (*dict)->weight;
  return 16;
}

result<Value> Value::sequence(std::vector<Value> items, bool tuple) {
  Size size;
  for (const Value& item : items) size.add(item.nesting(), item.weight());
  BATON_CHECK_OK(size.check());
  Value v;
  v.held_ =
      std::make_shared<const List>(List{std::move(items), tuple, size.nesting + 1, size.weight});
  return v;
}

result<Value> Value::list(std::vector<Value> items) { return sequence(std::move(items), false); }
result<Value> Value::tuple(std::vector<Value> items) { return sequence(std::move(items), true); }

result<Value> Value::dict(std::vector<std::pair<Value, Value>> items) {
  Size size;
  for (const auto& [key, value] : items) {
    size.add(key.nesting(), key.weight());
    size.add(value.nesting(), value.weight());
  }
  BATON_CHECK_OK(size.check());
  Value v;
  v.held_ = std::make_shared<const Dict>(Dict{std::move(items), size.nesting + 1, size.weight});
  return v;
}

result<Value> Value::bound(const Value& receiver, Callable callable) {
  BATON_TRY(callable.nesting, nesting_around({&receiver, 1}));
  return Value(std::make_shared<const Callable>(std::move(callable)));
}

result<Value> Value::from_json(const boost::json::value& json) {
  switch (json.kind()) {
    case boost::json::kind::null:
      return Value(None{});
    case boost::json::kind::bool_:
      return Value(json.get_bool());
    case boost::json::kind::int64:
      return Value(json.get_int64());
    case boost::json::kind::uint64:
      return Value(static_cast<double>(json.get_uint64()));
    case boost::json::kind::double_:
      return Value(json.get_double());
    case boost::json::kind::string:
      return Value(std::string_view(json.get_string()));
    case boost::json::kind::array: {
      std::vector<Value> items;
      for (const auto& element : json.get_array()) {
        BATON_TRY(Value item, from_json(element));
        items.push_back(std::move(item));
      }
      return list(std::move(items));
    }
    case boost::json::kind::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [key, element] : json.get_object()) {
        BATON_TRY(Value item, from_json(element));
        entries.emplace_back(std::string_view(key), std::move(item));
      }
      return dict(std::move(entries));
    }
  }
  return error(Errc::kInternal, "a JSON value of no kind");
}

const std::vector<Value>& Value::items() const { return std::get<ListPtr>(held_)->items; }
bool Value::is_tuple() const { return is_list() && std::get<ListPtr>(held_)->tuple; }
const std::vector<std::pair<Value, Value>>& Value::entries() const {
  return std::get<DictPtr>(held_)->entries;
}

std::string Value::undefined_reason() const {
  const auto& reason = std::get<Undefined>(held_).reason;
  return reason ? *reason : "a value is undefined";
}

bool Value::truthy() const {
  if (is_bool()) return as_bool();
  if (is_int()) return as_int() != 0;
  if (is_float()) return as_double() != 0;
  if (is_string()) return !as_string().empty();
  if (is_list()) return !items().empty();
  if (is_dict()) return !entries().empty();
  return is_object() || is_callable();
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_list()) return is_tuple() ? "tuple" : "list";
  if (is_dict()) return "dict";
  return is_object() ? object().type_name() : "function";
}

}  // namespace baton::text::jinja
