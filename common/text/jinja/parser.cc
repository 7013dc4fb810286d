#include "common/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "common/text/jinja/expression_parser.h"
#include "common/text/jinja/token_stream.h"

namespace baton::text::jinja {
namespace {

using EndNames = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, size_t max_depth)
      : tokens_(std::move(tokens)), expressions_(tokens_, max_depth), max_depth_(max_depth) {}

  result<Block> run() { return block({}); }

 private:
  // Statements up to a tag that `ends` names, whose name is the next token; or to the end of the
  // template where it names none.
  result<Block> block(EndNames ends) {
    if (++nesting_ > max_depth_) {
      return tokens_.bad("blocks nest too deep", Errc::kResourceExhausted);
    }
    Block out;
    while (!tokens_.is(TokenKind::kEnd)) {
      const int line = tokens_.peek().line;
      if (tokens_.is(TokenKind::kBlockBegin)) {
        tokens_.next();
        if (tokens_.is_any_name(ends)) {
          --nesting_;
          return out;
        }
      }
      BATON_TRY(Statement statement, statement());
      statement.line = line;
      out.push_back(std::move(statement));
    }
    if (ends.size() > 0) return tokens_.unexpected("{% " + std::string(*(ends.end() - 1)) + " %}");
    --nesting_;
    return out;
  }

  // The body of a tag, with its begin and its end.
  result<Block> body(std::string_view end) {
    BATON_CHECK_OK(block_end());
    BATON_TRY(Block out, block({end}));
    tokens_.next();
    BATON_CHECK_OK(block_end());
    return out;
  }

  status block_end() { return tokens_.expect(TokenKind::kBlockEnd, "'%}'"); }

  result<Statement> statement() {
    if (tokens_.is(TokenKind::kText)) return Statement{0, Text{tokens_.next().text}};
    if (tokens_.is(TokenKind::kOutputBegin)) {
      tokens_.next();
      BATON_TRY(ExprPtr value, expressions_.tuple());
      BATON_CHECK_OK(tokens_.expect(TokenKind::kOutputEnd, "'}}'"));
      return Statement{0, Output{std::move(value)}};
    }
    BATON_TRY(const std::string tag, tokens_.expect_name("a tag's name"));
    if (tag == "if") return if_tag();
    if (tag == "for") return for_tag();
    if (tag == "set") return set_tag();
    if (tag == "macro") return macro_tag();
    if (tag == "generation") {
      BATON_TRY(Block inner, body("endgeneration"));
      return Statement{0, Scoped{std::move(inner)}};
    }
    if (tag == "break" || tag == "continue") return loop_control(tag);
    return tokens_.bad("the tag '" + tag + "' is not supported here", Errc::kUnsupported);
  }

  result<Statement> loop_control(const std::string& tag) {
    if (loops_ == 0) return tokens_.bad("'" + tag + "' outside of a loop");
    BATON_CHECK_OK(block_end());
    if (tag == "break") return Statement{0, Break{}};
    return Statement{0, Continue{}};
  }

  result<Statement> if_tag() {
    If out;
    while (true) {
      BATON_TRY(ExprPtr condition, expressions_.tuple(/*with_condition=*/false));
      BATON_CHECK_OK(block_end());
      BATON_TRY(Block then, block({"elif", "else", "endif"}));
      out.branches.emplace_back(std::move(condition), std::move(then));
      if (!tokens_.skip_name("elif")) break;
    }
    if (tokens_.skip_name("else")) {
      BATON_TRY(out.otherwise, body("endif"));
    } else {
      tokens_.next();
      BATON_CHECK_OK(block_end());
    }
    return Statement{0, std::move(out)};
  }

  result<Statement> for_tag() {
    For out;
    BATON_TRY(out.target, target(/*may_be_attribute=*/false));
    if (!tokens_.skip_name("in")) return tokens_.unexpected("'in'");
    BATON_TRY(out.iterable, expressions_.tuple(/*with_condition=*/false));
    if (tokens_.skip_name("if")) {
      BATON_TRY(out.filter, expressions_.expression());
    }
    if (tokens_.is_name("recursive")) {
      return tokens_.bad("recursive loops are not supported", Errc::kUnsupported);
    }
    BATON_CHECK_OK(block_end());
    ++loops_;
    BATON_TRY(out.body, block({"else", "endfor"}));
    --loops_;
    if (tokens_.skip_name("else")) {
      BATON_TRY(out.otherwise, body("endfor"));
    } else {
      tokens_.next();
      BATON_CHECK_OK(block_end());
    }
    return Statement{0, std::move(out)};
  }

  result<Statement> set_tag() {
    BATON_TRY(Target to, target(/*may_be_attribute=*/true));
    if (tokens_.skip_operator("=")) {
      BATON_TRY(ExprPtr value, expressions_.tuple());
      BATON_CHECK_OK(block_end());
      return Statement{0, Set{std::move(to), std::move(value)}};
    }
    BlockSet out{std::move(to), {}, {}};
    while (tokens_.skip_operator("|")) {
      BATON_TRY(Filter filter, expressions_.filter());
      out.filters.push_back(std::move(filter));
    }
    BATON_TRY(out.body, body("endset"));
    return Statement{0, std::move(out)};
  }

  result<Statement> macro_tag() {
    Macro out;
    BATON_TRY(out.name, tokens_.expect_name("a macro's name"));
    BATON_CHECK_OK(tokens_.expect_operator("("));
    while (!tokens_.skip_operator(")")) {
      if (!out.parameters.empty()) BATON_CHECK_OK(tokens_.expect_operator(","));
      BATON_TRY(std::string name, tokens_.expect_name("a parameter's name"));
      ExprPtr value;
      if (tokens_.skip_operator("=")) {
        BATON_TRY(value, expressions_.expression());
      } else if (!out.parameters.empty() && out.parameters.back().second) {
        return tokens_.bad("a parameter without default follows one with a default");
      }
      out.parameters.emplace_back(std::move(name), std::move(value));
    }
    const size_t loops_around = std::exchange(loops_, 0);
    BATON_TRY(out.body, body("endmacro"));
    loops_ = loops_around;
    return Statement{0, std::move(out)};
  }

  // NAME, NAME or (NAME, NAME) or NAME.ATTRIBUTE
  result<Target> target(bool may_be_attribute) {
    Target out;
    const bool bracket = tokens_.skip_operator("(");
    do {
      if (!out.names.empty() && !tokens_.is(TokenKind::kName)) break;  // after a last comma
      if (tokens_.is_operator("(")) {
        return tokens_.bad("nested targets are not supported", Errc::kUnsupported);
      }
      BATON_TRY(std::string name, tokens_.expect_name("a name"));
      static constexpr std::string_view kReserved[] = {"true",  "false", "none", "True",
                                                       "False", "None",  "loop"};
      if (std::ranges::find(kReserved, name) != std::end(kReserved)) {
        return tokens_.bad("'" + name + "' cannot be assigned to");
      }
      out.names.push_back(std::move(name));
      if (may_be_attribute && out.names.size() == 1 && tokens_.skip_operator(".")) {
        BATON_TRY(out.attribute, tokens_.expect_name("a name after '.'"));
        return out;
      }
    } while (!tokens_.is_name("in") && tokens_.skip_operator(","));
    if (bracket) BATON_CHECK_OK(tokens_.expect_operator(")"));
    return out;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  const size_t max_depth_;
  size_t nesting_ = 0;
  size_t loops_ = 0;  // around the current place, within the same macro
};

}  // namespace

result<Block> parse(std::string_view source, const Limits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return error(Errc::kResourceExhausted, "the template is longer than " +
                                               std::to_string(limits.max_source_bytes) + " bytes");
  }
  BATON_TRY(std::vector<Token> tokens, tokenize(source));
  return Parser(std::move(tokens), limits.max_depth).run();
}

}  // namespace baton::text::jinja
