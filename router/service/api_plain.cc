// The paths that need no worker.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "common/formats/utf8.h"
#include "router/openai/json_writer.h"
#include "router/openai/tokenize_request.h"
#include "router/service/api.h"
#include "router/service/debug_requests.h"

namespace baton::router {
namespace {

// %2F and the like; what is no such escape stays.
std::string percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* digits = text.data() + i + 1;
    const bool escape = text[i] == '%' && i + 2 < text.size() &&
                        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    out += escape ? static_cast<char>(byte) : text[i];
    if (escape) i += 2;
  }
  return out;
}

}  // namespace

void Api::append_model(std::string& out, const ServedModel& model) const {
  const auto capacity = cluster_.dispatcher().pool().capacity(model.name());
  out += R"({"id":)";
  append_json_string(out, model.name());
  fmt::format_to(std::back_inserter(out), R"(,"object":"model","created":{},"owned_by":"baton",)",
                 model.created());
  fmt::format_to(std::back_inserter(out), R"("max_model_len":{}}})",
                 capacity ? fmt::to_string(capacity->max_context) : "null");
}

void Api::list_models(std::string, ExchangePtr exchange) {
  std::string out = R"({"object":"list","data":[)";
  for (const auto& [name, model] : models_) {
    if (out.back() != '[') out += ',';
    append_model(out, model);
  }
  out += "]}";
  exchange->reply({.body = std::move(out)});
}

void Api::show_model(std::string, ExchangePtr exchange) {
  constexpr std::string_view kPath = "/v1/models/";
  const std::string_view name = std::string_view(exchange->head().path).substr(kPath.size());
  const auto model = find_model(percent_decode(name));
  if (!model) return refuse(exchange, model.error());
  std::string out;
  append_model(out, **model);
  exchange->reply({.body = std::move(out)});
}

api_result<Api::Tokenized> Api::tokenize_body(std::string_view body) const {
  Tokenized out;
  BATON_TRY(const TokenizeRequest request, parse_tokenize_request(body, limits_));
  BATON_TRY(out.model, find_model_or_only(request.model));
  auto encoded = request.messages
                     ? out.model->encode_chat(*request.messages, request.add_generation_prompt)
                     : out.model->encode_prompt(request.prompt, request.add_special_tokens);
  BATON_TRY(const std::vector<TokenId> ids, std::move(encoded));
  out.rest =
      fmt::format(R"("count":{},"tokens":[{}],"token_strs":)", ids.size(), fmt::join(ids, ","));
  if (!request.return_token_strings) {
    out.rest += "null}";
    return out;
  }
  out.rest += '[';
  for (const TokenId id : ids) {
    if (out.rest.back() != '[') out.rest += ',';
    append_json_string(out.rest, out.model->tokenizer().token_view(id));
  }
  out.rest += "]}";
  return out;
}

void Api::tokenize(std::string body, ExchangePtr exchange) {
  auto admission = admit(exchange->head());
  if (!admission) return refuse(exchange, admission.error());
  read_body(std::move(body), exchange, [this, exchange, place = *admission](std::string_view text) {
    return [this, exchange, place, answer = tokenize_body(text)] {
      if (!answer) return refuse(exchange, answer.error());
      const auto capacity = cluster_.dispatcher().pool().capacity(answer->model->name());
      exchange->reply(
          {.body = fmt::format(R"({{"max_model_len":{},{})",
                               capacity ? fmt::to_string(capacity->max_context) : "null",
                               answer->rest)});
    };
  });
}

api_result<std::string> Api::detokenize_body(std::string_view body) const {
  BATON_TRY(const DetokenizeRequest request, parse_detokenize_request(body, limits_));
  BATON_TRY(const ServedModel* model, find_model_or_only(request.model));
  const size_t vocab = model->tokenizer().vocab_size();
  const auto outside = std::ranges::find_if(
      request.tokens, [&](TokenId id) { return static_cast<size_t>(id) >= vocab; });
  if (outside != request.tokens.end()) {
    return bad_field("tokens", fmt::format("has token id {}, but the vocabulary ends at {}",
                                           *outside, vocab - 1));
  }
  std::string out = R"({"prompt":)";
  append_json_string(out, model->tokenizer().decode(request.tokens, /*skip_special=*/false));
  return out + "}";
}

void Api::detokenize(std::string body, ExchangePtr exchange) {
  auto admission = admit(exchange->head());
  if (!admission) return refuse(exchange, admission.error());
  read_body(std::move(body), exchange, [this, exchange, place = *admission](std::string_view text) {
    return [this, exchange, place, answer = detokenize_body(text)] {
      answer ? exchange->reply({.body = *answer}) : refuse(exchange, answer.error());
    };
  });
}

void Api::health(std::string, ExchangePtr exchange) {
  exchange->reply({.body = R"({"status":"ok"})"});
}

bool Api::is_ready() const {
  if (draining_) return false;
  const WorkerPool& pool = cluster_.dispatcher().pool();
  return std::ranges::any_of(models_,
                             [&](const auto& model) { return pool.servable(model.first); });
}

void Api::ready(std::string, ExchangePtr exchange) {
  if (is_ready()) {
    exchange->reply({.body = R"({"status":"ready"})"});
  } else if (draining_) {
    const ApiError why = from_error(error(Errc::kUnavailable, "the server is shutting down"));
    exchange->reply(error_reply(why));
  } else {
    exchange->reply(error_reply(overloaded("No model has the workers it needs yet")));
  }
}

void Api::version(std::string, ExchangePtr exchange) {
  exchange->reply({.body = fmt::format(R"({{"version":"{}"}})", BATON_VERSION)});
}

std::string Api::exposition() {
  std::string text = metrics_.expose(cluster_);
  metrics_.tenants().keep([this](std::string_view name) { return access_.has_tenant(name); });
  return text;
}

void Api::metrics(std::string, ExchangePtr exchange) {
  exchange->reply(
      {.body = exposition(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

// The oldest: what hangs is among them.
void Api::debug_requests(std::string, ExchangePtr exchange) {
  constexpr size_t kMostShown = 500;
  const Dispatcher& dispatcher = cluster_.dispatcher();
  exchange->reply(
      {.body = router::debug_requests(dispatcher.oldest(kMostShown), dispatcher.num_requests(),
                                      slo_classes_, Clock::now())});
}

void Api::page(std::string, ExchangePtr exchange) {
  exchange->reply(page_.reply(exchange->head().if_none_match));
}

void Api::state(std::string, ExchangePtr exchange) {
  const bool details = access_.sees_details(exchange->head().authorization);
  exchange->reply({.body = live_.json(BATON_VERSION, Clock::now(), details),
                   .headers = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
                              "cross-origin-resource-policy: same-origin\r\n"});
}

}  // namespace baton::router
