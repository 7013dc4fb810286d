#include "common/text/jinja/comparison.h"

#include <algorithm>

namespace baton::text::jinja {
namespace {

template <class A, class B>
int order_of(const A& a, const B& b) {
  return a < b ? -1 : b < a ? 1 : a == b ? 0 : 2;
}

// Texts of different sizes are different at a glance.
result<bool> equal_texts(Budget& budget, std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  BATON_CHECK_OK(budget.step(a.size() / 1024));
  return a == b;
}

result<bool> equal_lists(Budget& budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  BATON_CHECK_OK(budget.step(1 + a.size() / 16));
  for (size_t i = 0; i < a.size(); ++i) {
    BATON_TRY(const bool same, equal(budget, a[i], b[i]));
    if (!same) return false;
  }
  return true;
}

result<bool> equal_dicts(Budget& budget, const Value& a, const Value& b) {
  if (a.entries().size() != b.entries().size()) return false;
  BATON_CHECK_OK(budget.step(1 + a.entries().size() / 16));
  for (const auto& [key, value] : a.entries()) {
    BATON_TRY(const Value* other, find(budget, b, key));
    if (other == nullptr) return false;
    BATON_TRY(const bool same, equal(budget, value, *other));
    if (!same) return false;
  }
  return true;
}

result<int> order_lists(Budget& budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  const size_t common = std::min(a.size(), b.size());
  BATON_CHECK_OK(budget.step(1 + common / 16));
  for (size_t i = 0; i < common; ++i) {
    BATON_TRY(const bool same, equal(budget, a[i], b[i]));
    if (!same) return order(budget, a[i], b[i]);
  }
  return order_of(a.size(), b.size());
}

// Where `matches` first holds.
template <class Items, class Matches>
result<size_t> first_match(Budget& budget, const Items& items, Matches matches) {
  BATON_CHECK_OK(budget.step(items.size() / 16));
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_TRY(const bool yes, matches(items[i]));
    if (yes) return i;
  }
  return items.size();
}

const Value* value_at(const Value& dict, size_t index) {
  return index < dict.entries().size() ? &dict.entries()[index].second : nullptr;
}

}  // namespace

result<bool> equal(Budget& budget, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_double() == b.as_double() : a.as_int() == b.as_int();
  }
  if (!a.same_kind(b)) return false;
  if (a.is_string()) return equal_texts(budget, a.as_string(), b.as_string());
  if (a.is_list()) {
    if (a.is_tuple() != b.is_tuple()) return false;
    return equal_lists(budget, a.items(), b.items());
  }
  if (a.is_dict()) return equal_dicts(budget, a, b);
  if (a.is_object()) return &a.object() == &b.object();
  if (a.is_callable()) return &a.callable() == &b.callable();
  return true;  // None, undefined
}

result<int> order(Budget& budget, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) return order_of(a.as_double(), b.as_double());
    return order_of(a.as_int(), b.as_int());
  }
  if (a.is_string() && b.is_string()) {
    BATON_CHECK_OK(budget.step(std::min(a.as_string().size(), b.as_string().size()) / 1024));
    return order_of(a.as_string(), b.as_string());
  }
  if (a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    return order_lists(budget, a.items(), b.items());
  }
  if (a.is_undefined()) return error(Errc::kInvalidArgument, a.undefined_reason());
  if (b.is_undefined()) return error(Errc::kInvalidArgument, b.undefined_reason());
  return error(Errc::kInvalidArgument, "'" + std::string(a.type_name()) + "' and '" +
                                           std::string(b.type_name()) + "' have no order");
}

result<size_t> index_of(Budget& budget, const std::vector<Value>& items, const Value& wanted) {
  return first_match(budget, items, [&](const Value& item) { return equal(budget, item, wanted); });
}

result<size_t> index_of_key(Budget& budget, const Entries& entries, const Value& key) {
  return first_match(budget, entries,
                     [&](const auto& entry) { return equal(budget, entry.first, key); });
}

result<const Value*> find(Budget& budget, const Value& dict, const Value& key) {
  BATON_TRY(const size_t at, index_of_key(budget, dict.entries(), key));
  return value_at(dict, at);
}

result<const Value*> find(Budget& budget, const Value& dict, std::string_view key) {
  BATON_TRY(const size_t at,
            first_match(budget, dict.entries(), [&](const auto& entry) -> result<bool> {
              if (!entry.first.is_string()) return false;
              return equal_texts(budget, entry.first.as_string(), key);
            }));
  return value_at(dict, at);
}

}  // namespace baton::text::jinja
