#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/text/jinja/value.h"

// A parsed template: plain data, immutable once parsed. Depth is bounded by Limits::max_depth.
namespace baton::text::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct Attribute {  // object.name
  ExprPtr object;
  std::string name;
};
struct Item {  // object[index]
  ExprPtr object, index;
};
struct Slice {  // object[start:stop:step]; each bound may be null
  ExprPtr object, start, stop, step;
};
struct Call {
  ExprPtr callee;
  CallArguments arguments;
};
struct Filter {
  ExprPtr subject;  // null for a filter of a block set
  std::string name;
  CallArguments arguments;
};
struct Test {
  ExprPtr subject;
  std::string name;
  CallArguments arguments;
};
struct Unary {
  enum class Op : uint8_t { kNot, kMinus, kPlus };
  Op op;
  ExprPtr operand;
};
struct Binary {
  enum class Op : uint8_t {
    kAnd,
    kOr,
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,
    kFloorDivide,
    kModulo,
    kPower
  };
  Op op;
  ExprPtr left, right;
};
enum class CompareOp : uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};
struct Compare {  // a < b < c
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
struct Concat {  // a ~ b ~ c
  std::vector<ExprPtr> parts;
};
struct Conditional {  // then if condition else otherwise; the last may be null
  ExprPtr condition, then, otherwise;
};
struct ListLiteral {
  std::vector<ExprPtr> items;
  bool tuple = false;
};
struct DictLiteral {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};

struct Expr {
  int line = 1;
  size_t depth = 1;
  std::variant<Literal, Name, Attribute, Item, Slice, Call, Filter, Test, Unary, Binary, Compare,
               Concat, Conditional, ListLiteral, DictLiteral>
      node;
};

struct Statement;
using Block = std::vector<Statement>;

// What set and for give values to: one name, several (unpacked), or one attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  std::string attribute;
};
struct Text {
  std::string text;
};
struct Output {
  ExprPtr value;
};
struct If {
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExprPtr iterable, filter;  // the filter may be null
  Block body, otherwise;
};
struct Set {
  Target target;
  ExprPtr value;
};
struct BlockSet {
  Target target;
  std::vector<Filter> filters;
  Block body;
};
struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with their defaults, or null
  Block body;
};
struct Scoped {  // {% generation %}: prints its body
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  int line = 1;
  std::variant<Text, Output, If, For, Set, BlockSet, Macro, Scoped, Break, Continue> node;
};

}  // namespace baton::text::jinja
