#include "common/text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "common/text/jinja/builtins.h"
#include "common/text/jinja/comparison.h"
#include "common/text/jinja/operators.h"

namespace baton::text::jinja {
namespace {

using NamedValue = std::pair<std::string, Value>;

// Names and the scope around them. Macros keep a weak reference to where they were defined.
struct Scope : std::enable_shared_from_this<Scope> {
  explicit Scope(Scope* p) : parent(p) {}

  Scope* parent;
  NamedValues names;

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent) {
      const auto found = scope->names.find(name);
      if (found != scope->names.end()) return &found->second;
    }
    return nullptr;
  }
  void set(const std::string& name, Value value) { names.insert_or_assign(name, std::move(value)); }
};

// The variable `loop`.
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  // kResourceExhausted where the items nest too deep already.
  static result<std::shared_ptr<Loop>> make(std::vector<Value> items) {
    BATON_TRY(const uint32_t nesting, Value::nesting_around(items));
    return std::shared_ptr<Loop>(new Loop(std::move(items), nesting));
  }

  std::string_view type_name() const override { return "LoopContext"; }
  bool set_attribute(std::string_view, Value) override { return false; }
  uint32_t nesting() const override { return nesting_; }
  size_t size() const { return items_.size(); }
  const Value& go_to(size_t index) { return items_[index_ = index]; }

  Value attribute(std::string_view name) override {
    if (name == "index") return Value::size(index_ + 1);
    if (name == "index0") return Value::size(index_);
    if (name == "revindex") return Value::size(items_.size() - index_);
    if (name == "revindex0") return Value::size(items_.size() - index_ - 1);
    if (name == "first") return Value(index_ == 0);
    if (name == "last") return Value(index_ + 1 == items_.size());
    if (name == "length") return Value::size(items_.size());
    if (name == "depth") return Value::size(1);  // of recursive loops, which are not offered
    if (name == "depth0") return Value::size(0);
    if (name == "previtem" && index_ > 0) return items_[index_ - 1];
    if (name == "nextitem" && index_ + 1 < items_.size()) return items_[index_ + 1];
    if (name == "cycle") return cycle();
    return Value::undefined(fmt::format("'loop' has no attribute '{}' here", name));
  }

 private:
  Loop(std::vector<Value> items, uint32_t nesting) : items_(std::move(items)), nesting_(nesting) {}

  Value cycle() {
    auto body = [self = shared_from_this()](Runtime&, const Arguments& a) -> result<Value> {
      if (a.positional.empty()) return error(Errc::kInvalidArgument, "cycle() of nothing");
      return a.positional[self->index_ % a.positional.size()];
    };
    return Value(
        std::make_shared<const Callable>(Callable{"cycle", std::move(body), nesting_ + 1}));
  }

  const std::vector<Value> items_;
  const uint32_t nesting_;
  size_t index_ = 0;
};

class Interpreter {
 public:
  Interpreter(const Limits& limits, std::chrono::local_seconds now)
      : runtime_(limits, now), max_depth_(limits.max_depth) {}

  result<std::string> render(const Block& block, Variables variables) {
    const auto globals = std::make_shared<Scope>(nullptr);
    for (auto& [name, value] : global_functions()) globals->set(name, std::move(value));
    const auto root = std::make_shared<Scope>(globals.get());
    // Of several by one name the first counts.
    for (auto& [name, value] : variables) root->names.try_emplace(name, std::move(value));
    const auto done = run(block, *root);
    if (done) return std::move(out_);
    return error(done.error().code, fmt::format("line {}: {}", error_line_, done.error().message));
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  class Deeper {
   public:
    explicit Deeper(size_t& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }

   private:
    size_t& depth_;
  };

  Budget& budget() { return runtime_.budget(); }

  status check_depth() const {
    if (depth_ <= max_depth_) return {};
    return error(Errc::kResourceExhausted, "blocks, expressions and macro calls nest too deep");
  }

  // The first to see an error knows the line it belongs to.
  template <class T>
  result<T> located(result<T> outcome, int line) {
    if (!outcome && error_line_ == 0) error_line_ = line;
    return outcome;
  }

  status print(std::string_view text) {
    BATON_CHECK_OK(budget().text(out_.size() + text.size() > budget().limits().max_output_bytes
                                     ? out_.size() + text.size()
                                     : text.size()));
    out_ += text;
    return {};
  }

  result<Flow> run(const Block& block, Scope& scope) {
    const Deeper deeper(depth_);
    for (const Statement& statement : block) {
      BATON_TRY(const Flow flow, located(run(statement, scope), statement.line));
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  result<Flow> run(const Statement& statement, Scope& scope) {
    BATON_CHECK_OK(budget().step());
    BATON_CHECK_OK(check_depth());
    return std::visit([&](const auto& node) { return execute(node, scope); }, statement.node);
  }

  result<Flow> execute(const Text& node, Scope&) {
    BATON_CHECK_OK(print(node.text));
    return Flow::kNext;
  }

  result<Flow> execute(const Output& node, Scope& scope) {
    BATON_TRY(const Value value, eval(*node.value, scope));
    if (value.is_string()) {
      BATON_CHECK_OK(print(value.as_string()));
    } else {
      BATON_TRY(const std::string text, text_of(budget(), value));
      BATON_CHECK_OK(print(text));
    }
    return Flow::kNext;
  }

  result<Flow> execute(const If& node, Scope& scope) {
    for (const auto& [condition, then] : node.branches) {
      BATON_TRY(const Value value, eval(*condition, scope));
      if (value.truthy()) return run(then, scope);
    }
    return run(node.otherwise, scope);
  }

  result<Flow> execute(const For& node, Scope& scope) {
    BATON_TRY(const Value iterable, eval(*node.iterable, scope));
    BATON_TRY(auto items, iterate(budget(), iterable));
    const auto inner = std::make_shared<Scope>(&scope);
    if (node.filter) {
      std::vector<Value> kept;
      for (Value& item : items) {
        BATON_CHECK_OK(assign(node.target, item, *inner));
        BATON_TRY(const Value yes, eval(*node.filter, *inner));
        if (yes.truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    BATON_TRY(const auto loop, Loop::make(std::move(items)));
    bool any = false;
    for (size_t i = 0; i < loop->size(); ++i) {
      inner->names.clear();
      inner->set("loop", Value(std::shared_ptr<Object>(loop)));
      BATON_CHECK_OK(assign(node.target, loop->go_to(i), *inner));
      BATON_TRY(const Flow flow, run(node.body, *inner));
      if (flow == Flow::kBreak) break;
      any |= flow == Flow::kNext;
    }
    if (any) return Flow::kNext;
    return run(node.otherwise, scope);  // also where each turn was cut short: so does Jinja
  }

  result<Flow> execute(const Set& node, Scope& scope) {
    BATON_TRY(Value value, eval(*node.value, scope));
    BATON_CHECK_OK(assign(node.target, std::move(value), scope));
    return Flow::kNext;
  }

  result<Flow> execute(const BlockSet& node, Scope& scope) {
    BATON_TRY(Value value, captured(node.body, scope));
    for (const Filter& filter : node.filters) {
      BATON_TRY(const Arguments arguments, eval(filter.arguments, scope));
      BATON_TRY(value, apply_filter(runtime_, filter.name, value, arguments));
    }
    BATON_CHECK_OK(assign(node.target, std::move(value), scope));
    return Flow::kNext;
  }

  result<Flow> execute(const Macro& node, Scope& scope) {
    auto body = [this, &node, home = scope.weak_from_this()](Runtime&, const Arguments& arguments) {
      return call_macro(node, home.lock(), arguments);
    };
    scope.set(node.name, Value(std::make_shared<const Callable>(Callable{node.name, body})));
    return Flow::kNext;
  }

  result<Flow> execute(const Scoped& node, Scope& scope) {
    const auto inner = std::make_shared<Scope>(&scope);
    return run(node.body, *inner);
  }

  result<Flow> execute(const Break&, Scope&) { return Flow::kBreak; }
  result<Flow> execute(const Continue&, Scope&) { return Flow::kContinue; }

  // What `body` prints, as a value.
  result<Value> captured(const Block& body, Scope& scope) {
    const auto inner = std::make_shared<Scope>(&scope);
    std::string outer = std::exchange(out_, {});
    const auto done = run(body, *inner);
    std::string text = std::exchange(out_, std::move(outer));
    if (!done) return done.error();
    return Value(std::move(text));
  }

  result<Value> call_macro(const Macro& macro, const std::shared_ptr<Scope>& home,
                           const Arguments& arguments) {
    const auto fail = [&macro](std::string_view why) {
      return error(Errc::kInvalidArgument, fmt::format("macro '{}' {}", macro.name, why));
    };
    if (!home) return fail("is called where its definition is gone");
    if (arguments.positional.size() > macro.parameters.size()) return fail("has fewer parameters");
    const size_t parameters = macro.parameters.size();
    BATON_CHECK_OK(budget().step(parameters + parameters * arguments.named.size() / 16));
    const auto scope = std::make_shared<Scope>(home.get());
    for (const auto& [name, value] : arguments.named) {
      size_t at = 0;
      while (at < macro.parameters.size() && macro.parameters[at].first != name) ++at;
      if (at == macro.parameters.size()) return fail("has no parameter '" + name + "'");
      if (at < arguments.positional.size()) return fail("got '" + name + "' twice");
      scope->set(name, value);
    }
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const auto& [name, fallback] = macro.parameters[i];
      if (i < arguments.positional.size()) {
        scope->set(name, arguments.positional[i]);
      } else if (std::ranges::find(arguments.named, name, &NamedValue::first) ==
                 arguments.named.end()) {
        Value value = Value::undefined(fmt::format("parameter '{}' was not provided", name));
        if (fallback) {
          BATON_TRY(value, eval(*fallback, *scope));
        }
        scope->set(name, std::move(value));
      }
    }
    return captured(macro.body, *scope);
  }

  status assign(const Target& target, Value value, Scope& scope) {
    if (!target.attribute.empty()) {
      const Value* holder = scope.find(target.names[0]);
      if (holder == nullptr || !holder->is_object() ||
          !holder->object().set_attribute(target.attribute, std::move(value))) {
        return error(
            Errc::kInvalidArgument,
            fmt::format("'{}' is no namespace, its attributes cannot be set", target.names[0]));
      }
      return {};
    }
    if (target.names.size() == 1) {
      scope.set(target.names[0], std::move(value));
      return {};
    }
    BATON_TRY(const auto items, iterate(budget(), value));
    if (items.size() != target.names.size()) {
      return error(Errc::kInvalidArgument,
                   fmt::format("{} values for {} names", items.size(), target.names.size()));
    }
    for (size_t i = 0; i < items.size(); ++i) scope.set(target.names[i], items[i]);
    return {};
  }

  result<Value> eval(const Expr& expr, Scope& scope) {
    const Deeper deeper(depth_);
    const auto checked = [&]() -> result<Value> {
      BATON_CHECK_OK(budget().step());
      BATON_CHECK_OK(check_depth());
      return std::visit([&](const auto& node) { return evaluate(node, scope); }, expr.node);
    };
    return located(checked(), expr.line);
  }

  // The value of an expression that may be absent.
  result<Value> eval(const ExprPtr& expr, Scope& scope) {
    if (!expr) return Value();
    return eval(*expr, scope);
  }

  result<Arguments> eval(const CallArguments& arguments, Scope& scope) {
    Arguments out;
    for (const auto& expr : arguments.positional) {
      BATON_TRY(Value value, eval(*expr, scope));
      out.positional.push_back(std::move(value));
    }
    for (const auto& [name, expr] : arguments.named) {
      BATON_TRY(Value value, eval(*expr, scope));
      out.named.emplace_back(name, std::move(value));
    }
    return out;
  }

  result<Value> evaluate(const Literal& node, Scope&) { return node.value; }

  result<Value> evaluate(const Name& node, Scope& scope) {
    if (const Value* found = scope.find(node.name)) return *found;
    return Value::undefined(fmt::format("'{}' is undefined", node.name));
  }

  result<Value> evaluate(const Attribute& node, Scope& scope) {
    BATON_TRY(const Value object, eval(*node.object, scope));
    return get_attribute(budget(), object, node.name);
  }

  result<Value> evaluate(const Item& node, Scope& scope) {
    BATON_TRY(const Value object, eval(*node.object, scope));
    BATON_TRY(const Value index, eval(*node.index, scope));
    return get_item(budget(), object, index);
  }

  result<Value> evaluate(const Slice& node, Scope& scope) {
    BATON_TRY(const Value object, eval(*node.object, scope));
    BATON_TRY(const Value start, eval(node.start, scope));
    BATON_TRY(const Value stop, eval(node.stop, scope));
    BATON_TRY(const Value step, eval(node.step, scope));
    return slice(budget(), object, start, stop, step);
  }

  result<Value> evaluate(const Call& node, Scope& scope) {
    BATON_TRY(const Value callee, eval(*node.callee, scope));
    BATON_TRY(const Arguments arguments, eval(node.arguments, scope));
    if (callee.is_undefined()) return error(Errc::kInvalidArgument, callee.undefined_reason());
    if (!callee.is_callable()) {
      return error(Errc::kInvalidArgument,
                   fmt::format("'{}' cannot be called", callee.type_name()));
    }
    return callee.callable().body(runtime_, arguments);
  }

  result<Value> evaluate(const Filter& node, Scope& scope) {
    BATON_TRY(const Value subject, eval(*node.subject, scope));
    BATON_TRY(const Arguments arguments, eval(node.arguments, scope));
    return apply_filter(runtime_, node.name, subject, arguments);
  }

  result<Value> evaluate(const Test& node, Scope& scope) {
    BATON_TRY(const Value subject, eval(*node.subject, scope));
    BATON_TRY(const Arguments arguments, eval(node.arguments, scope));
    BATON_TRY(const bool yes, apply_test(runtime_, node.name, subject, arguments));
    return Value(yes);
  }

  result<Value> evaluate(const Unary& node, Scope& scope) {
    BATON_TRY(const Value value, eval(*node.operand, scope));
    if (node.op == Unary::Op::kNot) return Value(!value.truthy());
    if (node.op == Unary::Op::kMinus) return negate(value);
    if (value.is_bool()) return Value(value.as_int());
    if (value.is_number()) return value;
    return error(Errc::kInvalidArgument,
                 fmt::format("'+' does not go with '{}'", value.type_name()));
  }

  result<Value> evaluate(const Binary& node, Scope& scope) {
    BATON_TRY(const Value left, eval(*node.left, scope));
    if (node.op == Binary::Op::kAnd && !left.truthy()) return left;
    if (node.op == Binary::Op::kOr && left.truthy()) return left;
    BATON_TRY(const Value right, eval(*node.right, scope));
    if (node.op == Binary::Op::kAnd || node.op == Binary::Op::kOr) return right;
    return binary(budget(), node.op, left, right);
  }

  result<Value> evaluate(const Compare& node, Scope& scope) {
    BATON_TRY(Value left, eval(*node.first, scope));
    for (const auto& [op, expr] : node.rest) {
      BATON_TRY(Value right, eval(*expr, scope));
      BATON_TRY(const bool yes, compare(budget(), op, left, right));
      if (!yes) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  result<Value> evaluate(const Concat& node, Scope& scope) {
    std::string out;
    for (const auto& part : node.parts) {
      BATON_TRY(const Value value, eval(*part, scope));
      BATON_TRY(const std::string text, text_of(budget(), value));
      out += text;
      BATON_CHECK_OK(budget().text(out.size()));
    }
    return Value(std::move(out));
  }

  result<Value> evaluate(const Conditional& node, Scope& scope) {
    BATON_TRY(const Value condition, eval(*node.condition, scope));
    if (condition.truthy()) return eval(*node.then, scope);
    if (node.otherwise) return eval(*node.otherwise, scope);
    return Value::undefined("an inline if without else has no value here");
  }

  result<Value> evaluate(const ListLiteral& node, Scope& scope) {
    std::vector<Value> out;
    for (const auto& expr : node.items) {
      BATON_TRY(Value item, eval(*expr, scope));
      out.push_back(std::move(item));
    }
    return node.tuple ? Value::tuple(std::move(out)) : Value::list(std::move(out));
  }

  result<Value> evaluate(const DictLiteral& node, Scope& scope) {
    std::vector<std::pair<Value, Value>> out;
    for (const auto& [key_expr, value_expr] : node.entries) {
      BATON_TRY(Value key, eval(*key_expr, scope));
      BATON_TRY(Value value, eval(*value_expr, scope));
      BATON_TRY(const size_t at, index_of_key(budget(), out, key));
      if (at < out.size()) {
        out[at].second = std::move(value);
      } else {
        out.emplace_back(std::move(key), std::move(value));
      }
    }
    return Value::dict(std::move(out));
  }

  Runtime runtime_;
  const size_t max_depth_;
  std::string out_;
  size_t depth_ = 0;
  int error_line_ = 0;
};

}  // namespace

result<std::string> render(const Block& block, Variables variables, std::chrono::local_seconds now,
                           const Limits& limits) {
  return Interpreter(limits, now).render(block, std::move(variables));
}

}  // namespace baton::text::jinja
