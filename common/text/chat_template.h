#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/text/jinja/limits.h"

namespace baton::text {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatOptions {
  bool add_generation_prompt = true;
  // Texts of the model's tokens; an empty one is undefined to the template.
  std::string bos_token, eos_token;
  // The wall clock, in the zone that the template shall tell. Injected: rendering is pure.
  std::chrono::local_seconds now{};
  // More names for the template, such as enable_thinking. They win over all others but messages.
  boost::json::object variables;
};

// A model's own chat template: the part of Jinja that the templates of Llama, Qwen, SmolLM and
// Mistral models use, as transformers runs it (trim_blocks, lstrip_blocks, tools and documents
// None). Only the model's files bring templates; what clients send is data to them.
// Immutable and thread-safe; cheap to copy. Nothing here blocks.
class ChatTemplate {
 public:
  // `file_name` names the template in errors. kDataCorrupt for a syntax error, kUnsupported for a
  // tag that is not offered, kResourceExhausted beyond the limits; the sentence has the line.
  static result<ChatTemplate> parse(std::string_view source, std::string file_name,
                                    const jinja::Limits& limits = {});

  // The prompt. kInvalidArgument where the template refuses the messages (its raise_exception) or
  // cannot work on them, kUnsupported for a filter or test that is not offered,
  // kResourceExhausted beyond the limits; the sentence has file and line.
  // Roles and contents must be UTF-8 (kInvalidArgument).
  result<std::string> render(std::span<const ChatMessage> messages,
                             const ChatOptions& options = {}) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}

  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace baton::text
