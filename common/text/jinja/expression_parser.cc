#include "common/text/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace baton::text::jinja {
namespace {

size_t depth(const ExprPtr& expr) { return expr ? expr->depth : 0; }

size_t depth(const CallArguments& arguments) {
  size_t deepest = 0;
  for (const auto& value : arguments.positional) deepest = std::max(deepest, depth(value));
  for (const auto& [name, value] : arguments.named) deepest = std::max(deepest, depth(value));
  return deepest;
}

size_t depth(const std::vector<ExprPtr>& exprs) {
  size_t deepest = 0;
  for (const auto& expr : exprs) deepest = std::max(deepest, depth(expr));
  return deepest;
}

class Nesting {
 public:
  explicit Nesting(size_t& level) : level_(level) { ++level_; }
  ~Nesting() { --level_; }

 private:
  size_t& level_;
};

std::optional<Binary::Op> sum_op(const TokenStream& tokens) {
  if (tokens.is_operator("+")) return Binary::Op::kAdd;
  if (tokens.is_operator("-")) return Binary::Op::kSubtract;
  return std::nullopt;
}

std::optional<Binary::Op> product_op(const TokenStream& tokens) {
  if (tokens.is_operator("*")) return Binary::Op::kMultiply;
  if (tokens.is_operator("/")) return Binary::Op::kDivide;
  if (tokens.is_operator("//")) return Binary::Op::kFloorDivide;
  if (tokens.is_operator("%")) return Binary::Op::kModulo;
  return std::nullopt;
}

// Takes a comparison operator, if one stands here.
std::optional<CompareOp> take_compare_op(TokenStream& tokens) {
  static constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEqual},  {"!=", CompareOp::kNotEqual},
      {"<", CompareOp::kLess},    {"<=", CompareOp::kLessEqual},
      {">", CompareOp::kGreater}, {">=", CompareOp::kGreaterEqual}};
  for (const auto& [text, op] : kOperators) {
    if (tokens.skip_operator(text)) return op;
  }
  if (tokens.skip_name("in")) return CompareOp::kIn;
  if (tokens.is_name("not") && tokens.is_name("in", 1)) {
    tokens.next();
    tokens.next();
    return CompareOp::kNotIn;
  }
  return std::nullopt;
}

}  // namespace

Error ExpressionParser::too_deep() const {
  return tokens_.bad("an expression nests too deep", Errc::kResourceExhausted);
}

template <class Node>
result<ExprPtr> ExpressionParser::make(Node node, size_t below) {
  if (below >= max_depth_) return too_deep();
  auto expr = std::make_unique<Expr>();
  expr->line = tokens_.line();
  expr->depth = below + 1;
  expr->node = std::move(node);
  return ExprPtr(std::move(expr));
}

result<ExprPtr> ExpressionParser::expression(bool with_condition) {
  return with_condition ? conditional() : disjunction();
}

result<ExprPtr> ExpressionParser::tuple(bool with_condition) {
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!tokens_.is(TokenKind::kOutputEnd) && !tokens_.is(TokenKind::kBlockEnd) &&
         !tokens_.is_operator(")")) {
    BATON_TRY(ExprPtr item, expression(with_condition));
    items.push_back(std::move(item));
    if (!tokens_.skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (items.empty() && !tokens_.is_operator(")")) return tokens_.unexpected("an expression");
  const size_t below = depth(items);
  return make(ListLiteral{std::move(items), /*tuple=*/true}, below);
}

result<ExprPtr> ExpressionParser::conditional() {
  if (nesting_ >= max_depth_) return too_deep();
  const Nesting nesting(nesting_);
  BATON_TRY(ExprPtr value, disjunction());
  while (tokens_.skip_name("if")) {
    BATON_TRY(ExprPtr condition, disjunction());
    ExprPtr otherwise;
    if (tokens_.skip_name("else")) {
      BATON_TRY(otherwise, conditional());
    }
    const size_t below = std::max({depth(value), depth(condition), depth(otherwise)});
    BATON_TRY(value, make(Conditional{std::move(condition), std::move(value), std::move(otherwise)},
                          below));
  }
  return value;
}

result<ExprPtr> ExpressionParser::disjunction() {
  BATON_TRY(ExprPtr left, conjunction());
  while (tokens_.skip_name("or")) {
    BATON_TRY(ExprPtr right, conjunction());
    const size_t below = std::max(depth(left), depth(right));
    BATON_TRY(left, make(Binary{Binary::Op::kOr, std::move(left), std::move(right)}, below));
  }
  return left;
}

result<ExprPtr> ExpressionParser::conjunction() {
  BATON_TRY(ExprPtr left, negation());
  while (tokens_.skip_name("and")) {
    BATON_TRY(ExprPtr right, negation());
    const size_t below = std::max(depth(left), depth(right));
    BATON_TRY(left, make(Binary{Binary::Op::kAnd, std::move(left), std::move(right)}, below));
  }
  return left;
}

result<ExprPtr> ExpressionParser::negation() {
  size_t nots = 0;
  while (tokens_.skip_name("not")) ++nots;
  BATON_TRY(ExprPtr value, comparison());
  for (; nots > 0; --nots) {
    const size_t below = depth(value);
    BATON_TRY(value, make(Unary{Unary::Op::kNot, std::move(value)}, below));
  }
  return value;
}

result<ExprPtr> ExpressionParser::comparison() {
  BATON_TRY(ExprPtr first, sum());
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
  size_t below = depth(first);
  while (const auto op = take_compare_op(tokens_)) {
    BATON_TRY(ExprPtr right, sum());
    below = std::max(below, depth(right));
    rest.emplace_back(*op, std::move(right));
  }
  if (rest.empty()) return first;
  return make(Compare{std::move(first), std::move(rest)}, below);
}

result<ExprPtr> ExpressionParser::sum() {
  BATON_TRY(ExprPtr left, concatenation());
  while (const auto op = sum_op(tokens_)) {
    tokens_.next();
    BATON_TRY(ExprPtr right, concatenation());
    const size_t below = std::max(depth(left), depth(right));
    BATON_TRY(left, make(Binary{*op, std::move(left), std::move(right)}, below));
  }
  return left;
}

result<ExprPtr> ExpressionParser::concatenation() {
  BATON_TRY(ExprPtr first, product());
  if (!tokens_.is_operator("~")) return first;
  std::vector<ExprPtr> parts;
  parts.push_back(std::move(first));
  while (tokens_.skip_operator("~")) {
    BATON_TRY(ExprPtr part, product());
    parts.push_back(std::move(part));
  }
  const size_t below = depth(parts);
  return make(Concat{std::move(parts)}, below);
}

result<ExprPtr> ExpressionParser::product() {
  BATON_TRY(ExprPtr left, power());
  while (const auto op = product_op(tokens_)) {
    tokens_.next();
    BATON_TRY(ExprPtr right, power());
    const size_t below = std::max(depth(left), depth(right));
    BATON_TRY(left, make(Binary{*op, std::move(left), std::move(right)}, below));
  }
  return left;
}

result<ExprPtr> ExpressionParser::power() {
  BATON_TRY(ExprPtr left, unary(true));
  while (tokens_.skip_operator("**")) {
    BATON_TRY(ExprPtr right, unary(true));
    const size_t below = std::max(depth(left), depth(right));
    BATON_TRY(left, make(Binary{Binary::Op::kPower, std::move(left), std::move(right)}, below));
  }
  return left;
}

result<ExprPtr> ExpressionParser::unary(bool with_filters) {
  if (nesting_ >= max_depth_) return too_deep();
  const Nesting nesting(nesting_);
  ExprPtr value;
  if (tokens_.is_operator("-") || tokens_.is_operator("+")) {
    const auto op = tokens_.next().text == "-" ? Unary::Op::kMinus : Unary::Op::kPlus;
    BATON_TRY(ExprPtr operand, unary(false));
    const size_t below = depth(operand);
    BATON_TRY(value, make(Unary{op, std::move(operand)}, below));
  } else {
    BATON_TRY(value, primary());
  }
  BATON_TRY(value, postfix(std::move(value)));
  return with_filters ? filters_and_tests(std::move(value)) : std::move(value);
}

result<ExprPtr> ExpressionParser::primary() {
  switch (tokens_.peek().kind) {
    case TokenKind::kName:
      return constant_or_name();
    case TokenKind::kString:
      return string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return number();
    default:
      break;
  }
  if (tokens_.skip_operator("(")) {
    BATON_TRY(ExprPtr value, tuple());
    BATON_CHECK_OK(tokens_.expect_operator(")"));
    return value;
  }
  if (tokens_.skip_operator("[")) return list();
  if (tokens_.skip_operator("{")) return dict();
  return tokens_.unexpected("an expression");
}

result<ExprPtr> ExpressionParser::constant_or_name() {
  const std::string name = tokens_.next().text;
  if (name == "true" || name == "True") return make(Literal{Value(true)});
  if (name == "false" || name == "False") return make(Literal{Value(false)});
  if (name == "none" || name == "None") return make(Literal{Value(None{})});
  return make(Name{name});
}

result<ExprPtr> ExpressionParser::string() {
  std::string text;
  while (tokens_.is(TokenKind::kString)) text += tokens_.next().text;  // "a" "b" is "ab"
  return make(Literal{Value(std::move(text))});
}

result<ExprPtr> ExpressionParser::number() {
  const Token token = tokens_.next();
  const char* end = token.text.data() + token.text.size();
  std::errc failure;
  Value value;
  if (token.kind == TokenKind::kInteger) {
    int64_t n = 0;
    failure = std::from_chars(token.text.data(), end, n).ec;
    value = Value(n);
  } else {
    double d = 0;
    failure = std::from_chars(token.text.data(), end, d).ec;
    value = Value(d);
  }
  if (failure != std::errc()) return tokens_.bad("the number " + token.text + " is out of range");
  return make(Literal{std::move(value)});
}

result<ExprPtr> ExpressionParser::list() {
  std::vector<ExprPtr> items;
  while (!tokens_.skip_operator("]")) {
    if (!items.empty()) {
      BATON_CHECK_OK(tokens_.expect_operator(","));
      if (tokens_.skip_operator("]")) break;
    }
    BATON_TRY(ExprPtr item, expression());
    items.push_back(std::move(item));
  }
  const size_t below = depth(items);
  return make(ListLiteral{std::move(items)}, below);
}

result<ExprPtr> ExpressionParser::dict() {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
  size_t below = 0;
  while (!tokens_.skip_operator("}")) {
    if (!entries.empty()) {
      BATON_CHECK_OK(tokens_.expect_operator(","));
      if (tokens_.skip_operator("}")) break;
    }
    BATON_TRY(ExprPtr key, expression());
    BATON_CHECK_OK(tokens_.expect_operator(":"));
    BATON_TRY(ExprPtr value, expression());
    below = std::max({below, depth(key), depth(value)});
    entries.emplace_back(std::move(key), std::move(value));
  }
  return make(DictLiteral{std::move(entries)}, below);
}

result<ExprPtr> ExpressionParser::postfix(ExprPtr base) {
  while (true) {
    if (tokens_.skip_operator(".")) {
      BATON_TRY(base, dot(std::move(base)));
    } else if (tokens_.skip_operator("[")) {
      BATON_TRY(base, subscript(std::move(base)));
    } else if (tokens_.is_operator("(")) {
      BATON_TRY(CallArguments call, arguments());
      const size_t below = std::max(depth(base), depth(call));
      BATON_TRY(base, make(Call{std::move(base), std::move(call)}, below));
    } else {
      return base;
    }
  }
}

result<ExprPtr> ExpressionParser::filters_and_tests(ExprPtr base) {
  while (true) {
    if (tokens_.skip_operator("|")) {
      BATON_TRY(Filter applied, filter());
      const size_t below = std::max(depth(base), depth(applied.arguments));
      applied.subject = std::move(base);
      BATON_TRY(base, make(std::move(applied), below));
    } else if (tokens_.skip_name("is")) {
      BATON_TRY(base, test(std::move(base)));
    } else if (tokens_.is_operator("(")) {
      BATON_TRY(CallArguments call, arguments());
      const size_t below = std::max(depth(base), depth(call));
      BATON_TRY(base, make(Call{std::move(base), std::move(call)}, below));
    } else {
      return base;
    }
  }
}

result<ExprPtr> ExpressionParser::dot(ExprPtr base) {
  const size_t below = depth(base);
  if (tokens_.is(TokenKind::kInteger)) {  // list.0
    BATON_TRY(ExprPtr index, number());
    return make(Item{std::move(base), std::move(index)}, below);
  }
  BATON_TRY(std::string name, tokens_.expect_name("a name after '.'"));
  return make(Attribute{std::move(base), std::move(name)}, below);
}

result<ExprPtr> ExpressionParser::subscript(ExprPtr base) {
  ExprPtr bounds[3];
  size_t colons = 0, below = depth(base);
  while (!tokens_.skip_operator("]")) {
    if (tokens_.is_operator(":") && colons < 2) {
      tokens_.next();
      ++colons;
    } else if (!bounds[colons]) {
      BATON_TRY(bounds[colons], expression());
      below = std::max(below, depth(bounds[colons]));
    } else {
      return tokens_.unexpected("']'");
    }
  }
  if (colons > 0) {
    return make(
        Slice{std::move(base), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2])},
        below);
  }
  if (!bounds[0]) return tokens_.unexpected("an index");
  return make(Item{std::move(base), std::move(bounds[0])}, below);
}

result<Filter> ExpressionParser::filter() {
  Filter filter;
  BATON_TRY(filter.name, tokens_.expect_name("a filter's name"));
  if (tokens_.is_operator("(")) {
    BATON_TRY(filter.arguments, arguments());
  }
  return filter;
}

// `is divisibleby 3`: one argument may follow without brackets.
bool ExpressionParser::at_test_argument() const {
  switch (tokens_.peek().kind) {
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    case TokenKind::kName:
      return !tokens_.is_any_name({"else", "or", "and", "if", "is"});
    default:
      return tokens_.is_operator("[") || tokens_.is_operator("{");
  }
}

result<ExprPtr> ExpressionParser::test(ExprPtr base) {
  const bool negated = tokens_.skip_name("not");
  Test test;
  BATON_TRY(test.name, tokens_.expect_name("a test's name"));
  if (tokens_.is_operator("(")) {
    BATON_TRY(test.arguments, arguments());
  } else if (at_test_argument()) {
    BATON_TRY(ExprPtr argument, primary());
    BATON_TRY(argument, postfix(std::move(argument)));
    test.arguments.positional.push_back(std::move(argument));
  }
  const size_t below = std::max(depth(base), depth(test.arguments));
  test.subject = std::move(base);
  BATON_TRY(ExprPtr expr, make(std::move(test), below));
  if (!negated) return expr;
  const size_t depth_of_test = expr->depth;
  return make(Unary{Unary::Op::kNot, std::move(expr)}, depth_of_test);
}

result<CallArguments> ExpressionParser::arguments() {
  CallArguments out;
  BATON_CHECK_OK(tokens_.expect_operator("("));
  bool first = true;
  while (!tokens_.skip_operator(")")) {
    if (!first) {
      BATON_CHECK_OK(tokens_.expect_operator(","));
      if (tokens_.skip_operator(")")) break;
    }
    first = false;
    if (tokens_.is_operator("*") || tokens_.is_operator("**")) {
      return tokens_.bad("unpacking arguments is not supported", Errc::kUnsupported);
    }
    if (tokens_.is(TokenKind::kName) && tokens_.is_operator("=", 1)) {
      std::string name = tokens_.next().text;
      tokens_.next();
      BATON_TRY(ExprPtr value, expression());
      out.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!out.named.empty()) return tokens_.bad("a positional argument follows a named one");
      BATON_TRY(ExprPtr value, expression());
      out.positional.push_back(std::move(value));
    }
  }
  return out;
}

}  // namespace baton::text::jinja
