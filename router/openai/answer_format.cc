#include "router/openai/answer_format.h"

#include <fmt/format.h>

#include <iterator>

#include "router/openai/json_writer.h"
#include "router/openai/logprobs.h"

namespace baton::router {
namespace {

void append_usage(std::string& out, const Usage& usage) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
                 R"("prompt_tokens_details":{{"cached_tokens":{}}}}})",
                 usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens);
}

void append_ms(std::string& out, std::string_view key, const std::optional<double>& ms) {
  fmt::format_to(std::back_inserter(out), R"(,"{}":{})", key,
                 ms ? fmt::format("{:.3f}", *ms) : "null");
}

void append_timings(std::string& out, const Timings& timings) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"ttft_ms":{:.3f},"tpot_ms":{:.3f},"kv_bytes":{},"cached_tokens":{},)",
                 timings.ttft_ms, timings.tpot_ms, timings.kv_bytes, timings.cached_tokens);
  out += R"("kv_transport":)";
  append_json_string_or_null(out, timings.kv_transport);
  out += R"(,"prefill_worker":)";
  append_json_string_or_null(out, timings.prefill_worker);
  out += R"(,"decode_worker":)";
  append_json_string_or_null(out, timings.decode_worker);
  fmt::format_to(std::back_inserter(out), R"(,"worst_gap_ms":{:.3f},"slo_class":)",
                 timings.worst_gap_ms);
  append_json_string_or_null(out, timings.slo_class);
  out += R"(,"slo_result":)";
  append_json_string_or_null(out, timings.slo_result);
  append_ms(out, "target_ttft_ms", timings.target_ttft_ms);
  append_ms(out, "target_tpot_ms", timings.target_tpot_ms);
  append_ms(out, "predicted_ttft_ms", timings.predicted_ttft_ms);
  append_ms(out, "predicted_tpot_ms", timings.predicted_tpot_ms);
  out += '}';
}

void append_finish(std::string& out, const std::optional<FinishReason>& finish) {
  out += R"("finish_reason":)";
  if (!finish) {
    out += "null";
  } else {
    out += *finish == FinishReason::kStop ? R"("stop")" : R"("length")";
  }
}

std::string answer_start(const AnswerHead& head, bool event) {
  const bool chat = head.kind == AnswerHead::Kind::kChat;
  std::string out = R"({"id":)";
  append_json_string(out, head.id);
  out += R"(,"object":")";
  out += !chat ? "text_completion" : event ? "chat.completion.chunk" : "chat.completion";
  fmt::format_to(std::back_inserter(out), R"(","created":{},"model":)", head.created);
  append_json_string(out, head.model);
  out += R"(,"system_fingerprint":)";
  append_json_string_or_null(out, head.fingerprint);
  out += R"(,"choices":[)";
  return out;
}

}  // namespace

AnswerFormat::AnswerFormat(AnswerHead head)
    : head_(std::move(head)), event_start_("data: " + answer_start(head_, /*event=*/true)) {}

void AnswerFormat::append_scores(std::string& out, const std::vector<TokenScore>& scores) const {
  out += R"("logprobs":)";
  if (!head_.logprobs || scores.empty()) {
    out += "null";
  } else if (head_.kind == AnswerHead::Kind::kChat) {
    append_chat_logprobs(out, scores);
  } else {
    append_completion_logprobs(out, scores);
  }
}

void AnswerFormat::append_choice(std::string& out, const ChoicePiece& piece, bool event) const {
  fmt::format_to(std::back_inserter(out), R"({{"index":{},)", piece.index);
  if (head_.kind == AnswerHead::Kind::kCompletion) {
    out += R"("text":)";
    append_json_string(out, piece.text);
  } else if (event) {
    out += R"("delta":{)";
    if (!piece.text.empty()) {
      out += R"("content":)";
      append_json_string(out, piece.text);
    }
    out += '}';
  } else {
    out += R"("message":{"role":"assistant","content":)";
    append_json_string(out, piece.text);
    out += R"(,"refusal":null})";
  }
  out += ',';
  append_scores(out, piece.scores);
  out += ',';
  append_finish(out, piece.finish);
  out += '}';
}

void AnswerFormat::append_role_event(std::string& out, uint32_t index) const {
  out += event_start_;
  fmt::format_to(std::back_inserter(out),
                 R"({{"index":{},"delta":{{"role":"assistant","content":""}},)"
                 R"("logprobs":null,"finish_reason":null}}])",
                 index);
  out += head_.include_usage ? ",\"usage\":null}\n\n" : "}\n\n";
}

void AnswerFormat::append_event(std::string& out, const ChoicePiece& piece,
                                const std::optional<Usage>& usage) const {
  out += event_start_;
  append_choice(out, piece, /*event=*/true);
  out += ']';
  if (head_.include_usage) {
    out += R"(,"usage":)";
    usage ? append_usage(out, *usage) : void(out += "null");
  }
  out += "}\n\n";
}

void AnswerFormat::append_closing_event(std::string& out, const std::optional<Usage>& usage,
                                        const std::optional<Timings>& timings) const {
  out += event_start_;
  out += ']';
  if (usage) {
    out += R"(,"usage":)";
    append_usage(out, *usage);
  }
  if (timings) {
    out += R"(,"baton":)";
    append_timings(out, *timings);
  }
  out += "}\n\n";
}

void AnswerFormat::append_error_event(std::string& out, const ApiError& error) {
  out += "data: ";
  out += error_body(error);
  out += "\n\n";
}

void AnswerFormat::append_done(std::string& out) { out += "data: [DONE]\n\n"; }

std::string AnswerFormat::body(const std::vector<ChoicePiece>& choices, const Usage& usage,
                               const std::optional<Timings>& timings) const {
  std::string out = answer_start(head_, /*event=*/false);
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    append_choice(out, choices[i], /*event=*/false);
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  if (timings) {
    out += R"(,"baton":)";
    append_timings(out, *timings);
  }
  out += '}';
  return out;
}

}  // namespace baton::router
