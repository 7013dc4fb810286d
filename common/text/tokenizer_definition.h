#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/text/added_tokens.h"
#include "common/text/bpe.h"
#include "common/text/normalizer.h"
#include "common/text/pre_tokenizer.h"

namespace baton::text {

// What a loader found in a model's files: all that makes a tokenizer.
struct TokenizerDefinition {
  struct Token {
    // What merging makes: bytes where byte-level, else characters. Empty where it makes none.
    std::string model_text;
    // What it decodes to. Empty for ids without a token.
    std::string bytes;
    bool special = false;
  };

  std::string source;         // the file, for messages
  std::vector<Token> tokens;  // by id
  std::vector<AddedToken> added;
  Bpe::Options bpe;
  std::array<TokenId, 256> byte_tokens{};  // as Bpe wants them; filled in where byte-level
  std::vector<Merge> merges;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;

  std::vector<TokenId> prefix, suffix;  // around every text, where asked for
  std::optional<TokenId> bos;
  std::vector<TokenId> eos;
  bool strip_first_space = false;  // of decoded text
  std::string chat_template;
};

}  // namespace baton::text
