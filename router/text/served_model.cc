#include "router/text/served_model.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "common/base/clock.h"

namespace baton::router {
namespace {

// UTC: a prompt should not depend on where the router runs.
std::chrono::local_seconds wall_clock() {
  const auto now = std::chrono::floor<seconds>(std::chrono::system_clock::now());
  return std::chrono::local_seconds(now.time_since_epoch());
}

ApiError encode_error(const Error& e, std::string_view field) {
  if (e.code != Errc::kInvalidArgument && e.code != Errc::kResourceExhausted &&
      e.code != Errc::kUnsupported) {
    return from_error(e);
  }
  return {.message = e.message, .param = std::string(field)};
}

}  // namespace

ServedModel::ServedModel(std::string name, text::Tokenizer tokenizer)
    : name_(std::move(name)),
      created_(
          std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch())
              .count()),
      tokenizer_(std::move(tokenizer)) {}

result<ServedModel> ServedModel::load(std::string name, const std::filesystem::path& path) {
  BATON_TRY(text::Tokenizer tokenizer, text::Tokenizer::load(path));
  return create(std::move(name), std::move(tokenizer));
}

result<ServedModel> ServedModel::create(std::string name, text::Tokenizer tokenizer) {
  ServedModel model(std::move(name), std::move(tokenizer));
  const std::string& source = model.tokenizer_.chat_template();
  if (!source.empty()) {
    BATON_TRY(model.template_, text::ChatTemplate::parse(source, model.tokenizer_.source()));
  }
  return model;
}

api_result<std::vector<TokenId>> ServedModel::encode_prompt(std::string_view prompt,
                                                            bool add_special) const {
  auto ids = tokenizer_.encode(prompt, {.add_special = add_special, .parse_special = true});
  if (!ids) return encode_error(ids.error(), "prompt");
  return std::move(*ids);
}

api_result<std::vector<TokenId>> ServedModel::encode_chat(std::span<const ChatMessage> messages,
                                                          bool add_generation_prompt) const {
  if (!template_) {
    return ApiError{.message = fmt::format("The model '{}' has no chat template", name_),
                    .param = "messages"};
  }
  std::vector<text::ChatMessage> guarded;
  guarded.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    guarded.push_back({message.role, tokenizer_.guard(message.content)});
  }
  text::ChatOptions options;
  options.add_generation_prompt = add_generation_prompt;
  options.now = wall_clock();
  if (const auto bos = tokenizer_.bos()) options.bos_token = tokenizer_.token_bytes(*bos);
  if (!tokenizer_.eos().empty()) {
    options.eos_token = tokenizer_.token_bytes(tokenizer_.eos().front());
  }
  const auto rendered = template_->render(guarded, options);
  if (!rendered) return encode_error(rendered.error(), "messages");
  auto ids =
      tokenizer_.encode(*rendered, {.add_special = false, .parse_special = true, .guarded = true});
  if (!ids) return encode_error(ids.error(), "messages");
  return std::move(*ids);
}

}  // namespace baton::router
