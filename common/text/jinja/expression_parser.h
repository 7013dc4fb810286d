#pragma once

#include "common/base/result.h"
#include "common/text/jinja/ast.h"
#include "common/text/jinja/token_stream.h"

namespace baton::text::jinja {

// Expressions by recursive descent, with Jinja's precedences. Every expression knows its depth, so
// that neither long chains nor nesting can exhaust the stack, here or later.
class ExpressionParser {
 public:
  ExpressionParser(TokenStream& tokens, size_t max_depth)
      : tokens_(tokens), max_depth_(max_depth) {}

  result<ExprPtr> expression(bool with_condition = true);
  // expression, or a tuple of several with commas between them.
  result<ExprPtr> tuple(bool with_condition = true);
  // NAME[(ARGUMENTS)] after a '|'.
  result<Filter> filter();

 private:
  result<ExprPtr> conditional();
  result<ExprPtr> disjunction();
  result<ExprPtr> conjunction();
  result<ExprPtr> negation();
  result<ExprPtr> comparison();
  result<ExprPtr> sum();
  result<ExprPtr> concatenation();
  result<ExprPtr> product();
  result<ExprPtr> power();
  result<ExprPtr> unary(bool with_filters);
  result<ExprPtr> primary();
  result<ExprPtr> constant_or_name();
  result<ExprPtr> string();
  result<ExprPtr> number();
  result<ExprPtr> list();
  result<ExprPtr> dict();
  result<ExprPtr> postfix(ExprPtr base);
  result<ExprPtr> filters_and_tests(ExprPtr base);
  result<ExprPtr> dot(ExprPtr base);
  result<ExprPtr> subscript(ExprPtr base);
  result<ExprPtr> test(ExprPtr base);
  result<CallArguments> arguments();

  bool at_test_argument() const;
  // An expression one deeper than `below`, the depth of its deepest part.
  template <class Node>
  result<ExprPtr> make(Node node, size_t below = 0);
  Error too_deep() const;

  TokenStream& tokens_;
  const size_t max_depth_;
  size_t nesting_ = 0;
};

}  // namespace baton::text::jinja
