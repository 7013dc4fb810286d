#include "common/text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/formats/utf8.h"
#include "common/text/jinja/comparison.h"
#include "common/text/jinja/methods.h"
#include "common/text/jinja/runtime.h"
#include "common/text/jinja/strings.h"
#include "common/text/utf8.h"

namespace baton::text::jinja {
namespace {

Error undefined_used(const Value& v) { return error(Errc::kInvalidArgument, v.undefined_reason()); }

Error no_operation(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) return undefined_used(a);
  if (b.is_undefined()) return undefined_used(b);
  return error(Errc::kInvalidArgument, fmt::format("'{}' does not go with '{}' and '{}'", op,
                                                   a.type_name(), b.type_name()));
}

Error out_of_range() {
  return error(Errc::kInvalidArgument, "an integer is out of range (64 bits)");
}
Error division_by_zero() { return error(Errc::kInvalidArgument, "division by zero"); }

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

result<Value> power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return division_by_zero();
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t out = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(out, base, &out)) return out_of_range();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return out_of_range();
  }
  return Value(out);
}

result<Value> integer_arithmetic(Binary::Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case Binary::Op::kAdd:
      if (__builtin_add_overflow(a, b, &out)) return out_of_range();
      return Value(out);
    case Binary::Op::kSubtract:
      if (__builtin_sub_overflow(a, b, &out)) return out_of_range();
      return Value(out);
    case Binary::Op::kMultiply:
      if (__builtin_mul_overflow(a, b, &out)) return out_of_range();
      return Value(out);
    case Binary::Op::kPower:
      return power(a, b);
    default:
      break;
  }
  if (b == 0) return division_by_zero();
  if (op == Binary::Op::kDivide) return Value(static_cast<double>(a) / static_cast<double>(b));
  if (a == INT64_MIN && b == -1) {
    if (op == Binary::Op::kModulo) return Value(int64_t{0});
    return out_of_range();
  }
  if (op == Binary::Op::kFloorDivide) return Value(floor_divide(a, b));
  return Value(a - floor_divide(a, b) * b);
}

result<Value> float_arithmetic(Binary::Op op, double a, double b) {
  switch (op) {
    case Binary::Op::kAdd:
      return Value(a + b);
    case Binary::Op::kSubtract:
      return Value(a - b);
    case Binary::Op::kMultiply:
      return Value(a * b);
    case Binary::Op::kPower:
      return Value(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return division_by_zero();
  if (op == Binary::Op::kDivide) return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == Binary::Op::kModulo) return Value(remainder);
  return Value(std::floor((a - remainder) / b + 0.5));
}

result<Value> repeat(Budget& budget, const Value& value, int64_t times) {
  const auto n = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (value.is_string()) {
    const std::string& text = value.as_string();
    if (!text.empty() && n > budget.limits().max_output_bytes / text.size()) {
      return error(Errc::kResourceExhausted, "a text gets longer than allowed");
    }
    BATON_CHECK_OK(budget.text(n * text.size()));
    std::string out;
    for (size_t i = 0; i < (text.empty() ? 0 : n); ++i) out += text;
    return Value(std::move(out));
  }
  std::vector<Value> out;
  for (size_t i = 0; i < (value.items().empty() ? 0 : n); ++i) {
    BATON_CHECK_OK(budget.step(value.items().size()));
    out.insert(out.end(), value.items().begin(), value.items().end());
  }
  return value.is_tuple() ? Value::tuple(std::move(out)) : Value::list(std::move(out));
}

result<Value> add_sequences(Budget& budget, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    BATON_CHECK_OK(budget.text(a.as_string().size() + b.as_string().size()));
    return Value(a.as_string() + b.as_string());
  }
  if (a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    BATON_CHECK_OK(budget.step(a.items().size() + b.items().size()));
    std::vector<Value> out = a.items();
    out.insert(out.end(), b.items().begin(), b.items().end());
    return a.is_tuple() ? Value::tuple(std::move(out)) : Value::list(std::move(out));
  }
  return no_operation("+", a, b);
}

std::string_view symbol(Binary::Op op) {
  static constexpr std::string_view kSymbols[] = {"and", "or", "+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

// An index of `size` elements as Python counts them; nothing out of range.
std::optional<size_t> position(int64_t index, size_t size) {
  if (index < 0) index += static_cast<int64_t>(size);
  if (index < 0 || index >= static_cast<int64_t>(size)) return std::nullopt;
  return static_cast<size_t>(index);
}

std::string object_text(const Value& v) {
  return v.is_none() ? "None" : fmt::format("{} object", v.type_name());
}

// The positions that [start:stop:step] selects out of `size`.
result<std::vector<size_t>> positions(Budget& budget, size_t size, const Value& start,
                                      const Value& stop, const Value& step) {
  const auto n = static_cast<int64_t>(size);
  const auto given = [](const Value& v) { return !v.is_undefined() && !v.is_none(); };
  BATON_TRY(const int64_t by, int_argument(given(step) ? step : Value(), "a slice's step", 1));
  if (by == 0) return error(Errc::kInvalidArgument, "a slice's step is zero");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto bound = [&](const Value& v, int64_t fallback) -> result<int64_t> {
    if (!given(v)) return fallback;
    BATON_TRY(int64_t at, int_argument(v, "a slice's bound", 0));
    if (at < 0) at = at < -n ? low : at + n;
    return std::clamp(at, low, high);
  };
  BATON_TRY(const int64_t from, bound(start, by > 0 ? low : high));
  BATON_TRY(const int64_t to, bound(stop, by > 0 ? high : low));
  std::vector<size_t> out;
  for (int64_t at = from; by > 0 ? at < to : at > to;) {
    out.push_back(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, by, &at)) break;
  }
  BATON_CHECK_OK(budget.step(1 + out.size() / 8));
  return out;
}

}  // namespace

result<Value> binary(Budget& budget, Binary::Op op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return float_arithmetic(op, a.as_double(), b.as_double());
    return integer_arithmetic(op, a.as_int(), b.as_int());
  }
  if (op == Binary::Op::kAdd) return add_sequences(budget, a, b);
  if (op == Binary::Op::kMultiply) {
    const auto is_sequence = [](const Value& v) { return v.is_string() || v.is_list(); };
    const auto is_count = [](const Value& v) { return v.is_int() || v.is_bool(); };
    if (is_sequence(a) && is_count(b)) return repeat(budget, a, b.as_int());
    if (is_count(a) && is_sequence(b)) return repeat(budget, b, a.as_int());
  }
  return no_operation(symbol(op), a, b);
}

result<Value> negate(const Value& value) {
  if (value.is_float()) return Value(-value.as_double());
  if (value.is_number()) return integer_arithmetic(Binary::Op::kSubtract, 0, value.as_int());
  if (value.is_undefined()) return undefined_used(value);
  return error(Errc::kInvalidArgument, fmt::format("'-' does not go with '{}'", value.type_name()));
}

result<bool> compare(Budget& budget, CompareOp op, const Value& a, const Value& b) {
  BATON_CHECK_OK(budget.step());
  switch (op) {
    case CompareOp::kEqual:
      return equal(budget, a, b);
    case CompareOp::kNotEqual: {
      BATON_TRY(const bool same, equal(budget, a, b));
      return !same;
    }
    case CompareOp::kIn:
      return contains(budget, b, a);
    case CompareOp::kNotIn: {
      BATON_TRY(const bool in, contains(budget, b, a));
      return !in;
    }
    default:
      break;
  }
  BATON_TRY(const int which, order(budget, a, b));
  switch (op) {
    case CompareOp::kLess:
      return which == -1;
    case CompareOp::kLessEqual:
      return which == -1 || which == 0;
    case CompareOp::kGreater:
      return which == 1;
    default:
      return which == 1 || which == 0;
  }
}

result<bool> contains(Budget& budget, const Value& container, const Value& item) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (!item.is_string()) return no_operation("in", item, container);
    BATON_CHECK_OK(budget.step(container.as_string().size() / 64));
    return find_text(container.as_string(), item.as_string()) != std::string::npos;
  }
  if (container.is_list()) {
    BATON_TRY(const size_t at, index_of(budget, container.items(), item));
    return at < container.items().size();
  }
  if (container.is_dict()) {
    BATON_TRY(const Value* found, find(budget, container, item));
    return found != nullptr;
  }
  return no_operation("in", item, container);
}

result<Value> get_attribute(Budget& budget, const Value& object, const std::string& name) {
  if (object.is_undefined()) return undefined_used(object);
  if (object.is_object()) return object.object().attribute(name);
  BATON_TRY(Value as_method, method(object, name));
  if (!as_method.is_undefined()) return as_method;
  if (object.is_dict()) {
    BATON_TRY(const Value* found, find(budget, object, std::string_view(name)));
    if (found != nullptr) return *found;
  }
  return Value::undefined(
      fmt::format("'{}' has no attribute '{}'", object_text(object), formats::printable(name)));
}

result<Value> get_item(Budget& budget, const Value& object, const Value& index) {
  if (object.is_undefined()) return undefined_used(object);
  if (object.is_dict()) {
    BATON_TRY(const Value* found, find(budget, object, index));
    if (found != nullptr) return *found;
  } else if ((object.is_list() || object.is_string()) && (index.is_int() || index.is_bool())) {
    if (object.is_list()) {
      const auto at = position(index.as_int(), object.items().size());
      if (at) return object.items()[*at];
    } else {
      BATON_CHECK_OK(budget.step(object.as_string().size() / 16));
      const auto all = characters(object.as_string());
      const auto at = position(index.as_int(), all.size());
      if (at) return Value(all[*at]);
    }
    return Value::undefined(
        fmt::format("'{}' has no element {}", object_text(object), index.as_int()));
  }
  if (index.is_string()) return get_attribute(budget, object, index.as_string());
  BATON_TRY(const std::string text, text_of(budget, index));
  return Value::undefined(
      fmt::format("'{}' has no element {}", object_text(object), formats::printable(text)));
}

result<Value> slice(Budget& budget, const Value& object, const Value& start, const Value& stop,
                    const Value& step) {
  if (object.is_undefined()) return undefined_used(object);
  if (object.is_string()) {
    BATON_CHECK_OK(budget.step(object.as_string().size() / 16));
    const auto all = characters(object.as_string());
    BATON_TRY(const auto selected, positions(budget, all.size(), start, stop, step));
    std::string out;
    for (size_t at : selected) out += all[at];
    return Value(std::move(out));
  }
  if (!object.is_list()) {
    return error(Errc::kInvalidArgument, fmt::format("'{}' cannot be sliced", object.type_name()));
  }
  BATON_TRY(const auto selected, positions(budget, object.items().size(), start, stop, step));
  std::vector<Value> out;
  for (size_t at : selected) out.push_back(object.items()[at]);
  return object.is_tuple() ? Value::tuple(std::move(out)) : Value::list(std::move(out));
}

result<std::vector<Value>> iterate(Budget& budget, const Value& value) {
  std::vector<Value> out;
  if (value.is_undefined()) return out;
  if (value.is_list()) {
    BATON_CHECK_OK(budget.step(value.items().size() / 8));
    return value.items();
  }
  if (value.is_dict()) {
    BATON_CHECK_OK(budget.step(value.entries().size() / 8));
    for (const auto& [key, unused] : value.entries()) out.push_back(key);
    return out;
  }
  if (value.is_string()) {
    BATON_CHECK_OK(budget.step(value.as_string().size()));
    for (std::string_view c : characters(value.as_string())) out.emplace_back(c);
    return out;
  }
  return error(Errc::kInvalidArgument, fmt::format("'{}' cannot be iterated", value.type_name()));
}

}  // namespace baton::text::jinja
