// Filters on lists, dicts and whatever else can be iterated.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/comparison.h"
#include "common/text/jinja/operators.h"
#include "common/text/jinja/strings.h"

namespace baton::text::jinja {
namespace {

// item.a.b, as map(attribute='a.b') and its kin look it up; a number is an index.
result<Value> attribute_of(Runtime& run, Value item, const Value& path) {
  if (path.is_int()) return get_item(run.budget(), item, path);
  BATON_TRY(const std::string_view names, string_argument(path, "an attribute"));
  BATON_CHECK_OK(run.budget().step(names.size() / 16));
  for (std::string_view name : split(names, ".", -1)) {
    int64_t index = 0;
    const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = failure == std::errc() && end == name.data() + name.size();
    BATON_TRY(item, get_item(run.budget(), item, is_index ? Value(index) : Value(name)));
  }
  return item;
}

Arguments without_first(const Arguments& arguments, size_t n) {
  Arguments out = arguments;
  out.positional.erase(out.positional.begin(), out.positional.begin() + static_cast<long>(n));
  return out;
}

result<Value> length_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("length", arguments, {}));
  if (subject.is_string()) {
    BATON_CHECK_OK(run.budget().step(subject.as_string().size() / 64));
    return Value::size(length(subject.as_string()));
  }
  if (subject.is_list()) return Value::size(subject.items().size());
  if (subject.is_dict()) return Value::size(subject.entries().size());
  if (subject.is_undefined()) return Value(int64_t{0});
  return error(Errc::kInvalidArgument, fmt::format("'{}' has no length", subject.type_name()));
}

result<Value> list_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("list", arguments, {}));
  BATON_TRY(auto items, iterate(run.budget(), subject));
  return Value::list(std::move(items));
}

template <bool front>
result<Value> end_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind(front ? "first" : "last", arguments, {}));
  if (subject.is_list() && !subject.items().empty()) {
    return front ? subject.items().front() : subject.items().back();
  }
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  if (items.empty()) return Value::undefined("an empty sequence has no first or last item");
  return front ? items.front() : items.back();
}

result<Value> reverse_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("reverse", arguments, {}));
  if (subject.is_string()) {
    return slice(run.budget(), subject, Value(), Value(), Value(int64_t{-1}));
  }
  BATON_TRY(auto items, iterate(run.budget(), subject));
  std::ranges::reverse(items);
  return Value::list(std::move(items));
}

result<Value> join_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("join", arguments, {"d", "attribute"}));
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  BATON_TRY(const std::string separator, text_of(run.budget(), given[0]));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (!given[1].is_undefined() && !given[1].is_none()) {
      BATON_TRY(item, attribute_of(run, item, given[1]));
    }
    BATON_TRY(const std::string part, text_of(run.budget(), item));
    BATON_CHECK_OK(run.budget().text(part.size() + separator.size()));
    if (i > 0) out += separator;
    out += part;
    if (out.size() > run.budget().limits().max_output_bytes) break;  // make_text refuses it
  }
  return make_text(run.budget(), std::move(out));
}

result<Value> items_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_CHECK_OK(bind("items", arguments, {}));
  if (subject.is_undefined()) return Value::list({});
  if (!subject.is_dict()) return error(Errc::kInvalidArgument, "items takes a mapping");
  std::vector<Value> out;
  for (const auto& [key, value] : subject.entries()) {
    BATON_CHECK_OK(run.budget().step());
    BATON_TRY(Value pair, Value::tuple({key, value}));
    out.push_back(std::move(pair));
  }
  return Value::list(std::move(out));
}

// map('filter', ...) or map(attribute='a', default=...).
result<Value> map_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(auto items, iterate(run.budget(), subject));
  if (!arguments.positional.empty()) {
    BATON_TRY(const std::string_view name,
              string_argument(arguments.positional[0], "map's filter"));
    const Arguments rest = without_first(arguments, 1);
    for (Value& item : items) {
      BATON_TRY(item, apply_filter(run, name, item, rest));
    }
    return Value::list(std::move(items));
  }
  BATON_TRY(const auto given, bind("map", arguments, {"attribute", "default"}));
  for (Value& item : items) {
    BATON_TRY(item, attribute_of(run, item, given[0]));
    if (item.is_undefined() && !given[1].is_undefined()) item = given[1];
  }
  return Value::list(std::move(items));
}

// select, reject(TEST, ...); selectattr, rejectattr(ATTRIBUTE, TEST, ...). Without a test: truth.
template <bool keep, bool by_attribute>
result<Value> select_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  constexpr size_t kBefore = by_attribute ? 1 : 0;
  if (arguments.positional.size() < kBefore) {
    return error(Errc::kInvalidArgument, "selectattr and rejectattr take an attribute");
  }
  const bool has_test = arguments.positional.size() > kBefore;
  std::string_view test;
  Arguments rest;
  if (has_test) {
    BATON_TRY(test, string_argument(arguments.positional[kBefore], "the test's name"));
    rest = without_first(arguments, kBefore + 1);
  }
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  std::vector<Value> out;
  for (const Value& item : items) {
    Value tested = item;
    if (by_attribute) {
      BATON_TRY(tested, attribute_of(run, item, arguments.positional[0]));
    }
    bool yes = tested.truthy();
    if (has_test) {
      BATON_TRY(yes, apply_test(run, test, tested, rest));
    }
    if (yes == keep) out.push_back(item);
  }
  return Value::list(std::move(out));
}

// What is compared in place of an item: its attribute, in lower case where case does not count.
result<std::vector<std::pair<Value, Value>>> keyed(Runtime& run, const std::vector<Value>& items,
                                                   const Value& attribute, bool case_sensitive) {
  std::vector<std::pair<Value, Value>> out;  // (key, item)
  for (const Value& item : items) {
    Value key = item;
    if (!attribute.is_undefined() && !attribute.is_none()) {
      BATON_TRY(key, attribute_of(run, item, attribute));
    }
    BATON_CHECK_OK(run.budget().step(1 + (key.is_string() ? key.weight() / 16 : 0)));
    if (!case_sensitive && key.is_string()) {
      BATON_TRY(key, make_text(run.budget(), lower(key.as_string())));
    }
    out.emplace_back(std::move(key), item);
  }
  return out;
}

// A stable merge sort whose comparison may fail; n log n comparisons, each charged.
status sort_pairs(Runtime& run, std::vector<std::pair<Value, Value>>& pairs) {
  std::vector<std::pair<Value, Value>> other(pairs.size());
  for (size_t width = 1; width < pairs.size(); width *= 2) {
    for (size_t begin = 0; begin < pairs.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, pairs.size());
      const size_t end = std::min(begin + 2 * width, pairs.size());
      size_t left = begin, right = middle;
      for (size_t to = begin; to < end; ++to) {
        bool take_right = left == middle;
        if (!take_right && right < end) {
          BATON_TRY(take_right,
                    compare(run.budget(), CompareOp::kLess, pairs[right].first, pairs[left].first));
        }
        other[to] = std::move(pairs[take_right ? right++ : left++]);
      }
    }
    pairs.swap(other);
  }
  return {};
}

result<Value> values_of(std::vector<std::pair<Value, Value>> pairs) {
  std::vector<Value> out;
  for (auto& [key, item] : pairs) out.push_back(std::move(item));
  return Value::list(std::move(out));
}

result<Value> sort_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  BATON_TRY(auto pairs, keyed(run, items, given[2], given[1].truthy()));
  // Equal items keep their order, also when the order is reversed.
  if (given[0].truthy()) std::ranges::reverse(pairs);
  BATON_CHECK_OK(sort_pairs(run, pairs));
  if (given[0].truthy()) std::ranges::reverse(pairs);
  return values_of(std::move(pairs));
}

result<Value> dictsort_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}));
  BATON_TRY(Value items, items_filter(run, subject, {}));
  const bool by_value = given[1].is_string() && given[1].as_string() == "value";
  BATON_TRY(auto pairs,
            keyed(run, items.items(), Value(int64_t{by_value ? 1 : 0}), given[0].truthy()));
  if (given[2].truthy()) std::ranges::reverse(pairs);
  BATON_CHECK_OK(sort_pairs(run, pairs));
  if (given[2].truthy()) std::ranges::reverse(pairs);
  return values_of(std::move(pairs));
}

result<Value> unique_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("unique", arguments, {"case_sensitive", "attribute"}));
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  BATON_TRY(auto pairs, keyed(run, items, given[1], given[0].truthy()));
  std::vector<std::pair<Value, Value>> out;
  for (auto& pair : pairs) {
    BATON_CHECK_OK(run.budget().step());
    BATON_TRY(const size_t seen_at, index_of_key(run.budget(), out, pair.first));
    if (seen_at == out.size()) out.push_back(std::move(pair));
  }
  return values_of(std::move(out));
}

template <bool smallest>
result<Value> extreme_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given,
            bind(smallest ? "min" : "max", arguments, {"case_sensitive", "attribute"}));
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  BATON_TRY(const auto pairs, keyed(run, items, given[1], given[0].truthy()));
  if (pairs.empty()) return Value::undefined("an empty sequence has no least or greatest item");
  size_t best = 0;
  for (size_t i = 1; i < pairs.size(); ++i) {
    const CompareOp op = smallest ? CompareOp::kLess : CompareOp::kGreater;
    BATON_TRY(const bool better, compare(run.budget(), op, pairs[i].first, pairs[best].first));
    if (better) best = i;
  }
  return pairs[best].second;
}

result<Value> sum_filter(Runtime& run, const Value& subject, const Arguments& arguments) {
  BATON_TRY(const auto given, bind("sum", arguments, {"attribute", "start"}));
  BATON_TRY(const auto items, iterate(run.budget(), subject));
  Value total = given[1].is_undefined() ? Value(int64_t{0}) : given[1];
  for (Value item : items) {
    if (!given[0].is_undefined() && !given[0].is_none()) {
      BATON_TRY(item, attribute_of(run, item, given[0]));
    }
    BATON_TRY(total, binary(run.budget(), Binary::Op::kAdd, total, item));
  }
  return total;
}

struct Entry {
  std::string_view name;
  FilterBody body;
};
constexpr Entry kFilters[] = {
    {"length", length_filter},
    {"count", length_filter},
    {"list", list_filter},
    {"first", end_filter<true>},
    {"last", end_filter<false>},
    {"reverse", reverse_filter},
    {"join", join_filter},
    {"items", items_filter},
    {"map", map_filter},
    {"select", select_filter<true, false>},
    {"reject", select_filter<false, false>},
    {"selectattr", select_filter<true, true>},
    {"rejectattr", select_filter<false, true>},
    {"sort", sort_filter},
    {"dictsort", dictsort_filter},
    {"unique", unique_filter},
    {"min", extreme_filter<true>},
    {"max", extreme_filter<false>},
    {"sum", sum_filter},
};

}  // namespace

FilterBody find_sequence_filter(std::string_view name) {
  const auto* found = std::ranges::find(kFilters, name, &Entry::name);
  return found == std::end(kFilters) ? nullptr : found->body;
}

}  // namespace baton::text::jinja
