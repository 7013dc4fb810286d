#include "common/text/jinja/runtime.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::text::jinja {

class Namespace : public Object {
 public:
  explicit Namespace(NamedValues attributes) : attributes_(std::move(attributes)) {}

  std::string_view type_name() const override { return "Namespace"; }

  Value attribute(std::string_view name) override {
    if (const auto found = attributes_.find(name); found != attributes_.end()) {
      return found->second;
    }
    return Value::undefined(fmt::format("'Namespace object' has no attribute '{}'", name));
  }

  bool set_attribute(std::string_view name, Value value) override {
    attributes_.insert_or_assign(std::string(name), std::move(value));
    return true;
  }

  void clear() { attributes_.clear(); }

 private:
  NamedValues attributes_;
};

Runtime::~Runtime() {
  for (const auto& one : namespaces_) one->clear();
}

std::shared_ptr<Object> Runtime::make_namespace(NamedValues attributes) {
  namespaces_.push_back(std::make_shared<Namespace>(std::move(attributes)));
  return namespaces_.back();
}

result<std::vector<Value>> bind(std::string_view function, const Arguments& arguments,
                                std::initializer_list<std::string_view> names) {
  if (arguments.positional.size() > names.size()) {
    return error(Errc::kInvalidArgument,
                 fmt::format("{}() takes at most {} arguments, got {}", function, names.size(),
                             arguments.positional.size()));
  }
  std::vector<Value> out = arguments.positional;
  out.resize(names.size());
  for (const auto& [name, value] : arguments.named) {
    const auto* at = std::ranges::find(names, name);
    if (at == names.end()) {
      return error(Errc::kInvalidArgument,
                   fmt::format("{}() has no argument '{}'", function, name));
    }
    const auto index = static_cast<size_t>(at - names.begin());
    if (index < arguments.positional.size()) {
      return error(Errc::kInvalidArgument,
                   fmt::format("{}() got the argument '{}' twice", function, name));
    }
    out[index] = value;
  }
  return out;
}

result<int64_t> int_argument(const Value& value, std::string_view what, int64_t fallback) {
  if (value.is_undefined()) return fallback;
  if (value.is_int() || value.is_bool()) return value.as_int();
  return error(Errc::kInvalidArgument,
               fmt::format("{} must be an integer, not {}", what, value.type_name()));
}

result<std::string_view> string_argument(const Value& value, std::string_view what) {
  if (value.is_string()) return std::string_view(value.as_string());
  return error(Errc::kInvalidArgument,
               fmt::format("{} must be a string, not {}", what, value.type_name()));
}

result<std::string> text_of(Budget& budget, const Value& value) {
  // Text is copied; all else is written piece by piece.
  BATON_CHECK_OK(budget.step(value.weight() / (value.is_string() ? 64 : 16)));
  return to_text(value);
}

result<Value> make_text(Budget& budget, std::string_view text) {
  BATON_CHECK_OK(budget.text(text.size()));
  return Value(text);
}

result<Value> make_text(Budget& budget, std::string text) {
  BATON_CHECK_OK(budget.text(text.size()));
  return Value(std::move(text));
}

}  // namespace baton::text::jinja
