#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/formats/fingerprint.h"
#include "common/formats/gguf.h"

namespace baton::text {

struct TokenizerDefinition;

struct EncodeOptions {
  // Put before and after the text what the model wants there (its BOS).
  bool add_special = true;
  // Recognise control tokens in the text: true for rendered chat templates, false for what a
  // client wrote, so that it cannot smuggle any in.
  bool parse_special = false;
  // The text has parts that went through guard(): they hold no control token, parse_special or not.
  bool guarded = false;
};

// A model's tokenizer: byte-level BPE, or BPE over characters with byte fallback (SentencePiece's,
// as Llama 2 has it). Gives the ids that the `tokenizers` library gives for the same file.
// Immutable and thread-safe, cheap to copy. Nothing but loading blocks or fails on valid text.
class Tokenizer {
 public:
  // From a GGUF file's metadata. Loading errors are kNotFound for missing parts, kDataCorrupt for
  // what cannot be, kUnsupported for another kind of tokenizer; the sentence names file and part.
  static result<Tokenizer> from_gguf(const formats::GgufFile& file);
  // From a directory with tokenizer.json and, where they are there, tokenizer_config.json,
  // chat_template.jinja, generation_config.json and config.json.
  static result<Tokenizer> from_huggingface(const std::filesystem::path& directory);
  // Either, by what the path is. Blocks on the disk.
  static result<Tokenizer> load(const std::filesystem::path& model);
  // For the loaders.
  static result<Tokenizer> create(TokenizerDefinition definition);

  // The ids of `utf8`. kInvalidArgument where it is not well-formed UTF-8 (the sentence names the
  // byte), kResourceExhausted where it is longer than 1 GiB or defeats the model's own pattern
  // or normalizer.
  // Near-linear in the length, whatever the text.
  result<std::vector<TokenId>> encode(std::string_view utf8, EncodeOptions options = {}) const;
  // `content` with an invisible mark in each control token's text, so that encode() with `guarded`
  // takes it for plain text wherever a template puts it; without such text, unchanged.
  std::string guard(std::string_view content) const;

  // One more than the highest id.
  size_t vocab_size() const;
  std::optional<TokenId> bos() const;
  // Every token that ends a generation; the model's own eos_token first.
  std::span<const TokenId> eos() const;

  // The bytes that a token stands for, which need not be whole characters; empty for an id that
  // is not of the vocabulary. A control token gives its name.
  std::string token_bytes(TokenId id) const;
  std::string_view token_view(TokenId id) const;  // the same, as long as this or a copy lives
  bool is_special(TokenId id) const;
  // The whole text, U+FFFD for bytes that are none. Drops the space that SentencePiece writes in
  // front, as the reference does.
  std::string decode(std::span<const TokenId> ids, bool skip_special = true) const;

  // The model's Jinja source, empty where it brings none.
  const std::string& chat_template() const;
  // Where it was read from, for messages.
  const std::string& source() const;
  // SHA-256 over vocabulary, merges and rules: equal tokenizers give the same ids for any text.
  const formats::Fingerprint& fingerprint() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  std::shared_ptr<const State> state_;
};

}  // namespace baton::text
