#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "router/openai/chat_request.h"

namespace baton::router {

// The text side of a model: what turns requests into token ids. Immutable and thread-safe.
class ServedModel {
 public:
  // Blocks on the disk; the error names the file.
  static result<ServedModel> load(std::string name, const std::filesystem::path& path);
  static result<ServedModel> create(std::string name, text::Tokenizer tokenizer);

  // The caller of the completions API owns the whole prompt, so control tokens in it count.
  api_result<std::vector<TokenId>> encode_prompt(std::string_view prompt, bool add_special) const;
  // Control tokens come from the template alone; a message's content never makes one.
  api_result<std::vector<TokenId>> encode_chat(std::span<const ChatMessage> messages,
                                               bool add_generation_prompt) const;

  const std::string& name() const { return name_; }
  int64_t created() const { return created_; }  // seconds of Unix time
  const text::Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  ServedModel(std::string name, text::Tokenizer tokenizer);

  std::string name_;
  int64_t created_;
  text::Tokenizer tokenizer_;
  std::optional<text::ChatTemplate> template_;
};

}  // namespace baton::router
