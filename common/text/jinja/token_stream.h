#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/text/jinja/lexer.h"

namespace baton::text::jinja {

// Tokens with a place in them, for the parsers.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];  // the last one is kEnd
  }
  Token next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  // Of the token taken last.
  int line() const { return tokens_[at_ == 0 ? 0 : at_ - 1].line; }

  bool is(TokenKind kind) const { return peek().kind == kind; }
  bool is_operator(std::string_view op, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == op;
  }
  bool is_name(std::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == name;
  }
  bool is_any_name(std::initializer_list<std::string_view> names) const {
    for (std::string_view name : names) {
      if (is_name(name)) return true;
    }
    return false;
  }
  bool skip_operator(std::string_view op) { return skip_if(is_operator(op)); }
  bool skip_name(std::string_view name) { return skip_if(is_name(name)); }

  Error bad(std::string reason, Errc code = Errc::kDataCorrupt) const {
    return error(code, "line " + std::to_string(peek().line) + ": " + std::move(reason));
  }
  // The error for what stands here in place of `wanted`.
  Error unexpected(std::string_view wanted) const {
    const Token& token = peek();
    std::string got = "'" + token.text + "'";
    if (token.kind == TokenKind::kEnd) got = "the end of the template";
    if (token.kind == TokenKind::kBlockEnd) got = "'%}'";
    if (token.kind == TokenKind::kOutputEnd) got = "'}}'";
    return bad("expected " + std::string(wanted) + ", got " + got);
  }

  status expect(TokenKind kind, std::string_view wanted) {
    if (!is(kind)) return unexpected(wanted);
    next();
    return {};
  }
  status expect_operator(std::string_view op) {
    if (!skip_operator(op)) return unexpected("'" + std::string(op) + "'");
    return {};
  }
  result<std::string> expect_name(std::string_view wanted) {
    if (!is(TokenKind::kName)) return unexpected(wanted);
    return next().text;
  }

 private:
  bool skip_if(bool yes) {
    if (yes) next();
    return yes;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace baton::text::jinja
