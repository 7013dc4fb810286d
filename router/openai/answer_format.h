#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "router/openai/error.h"

namespace baton::router {

// A token's text and the log probability that it had.
struct TokenScore {
  std::string bytes;                               // of the token; need not be whole characters
  std::optional<float> logprob;                    // nothing: the first token of an echoed prompt
  std::vector<std::pair<std::string, float>> top;  // alternatives, most likely first
  uint32_t text_offset = 0;                        // characters of the choice's text before it
};

enum class FinishReason { kStop, kLength };

// A piece of one choice: what an event tells, or, all of them together, the whole choice.
struct ChoicePiece {
  uint32_t index = 0;
  std::string text;  // whole characters
  std::vector<TokenScore> scores;
  std::optional<FinishReason> finish;
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;  // of the prompt, found in the prefix cache
};

// For x-baton-timings.
struct Timings {
  double ttft_ms = 0;
  double tpot_ms = 0;  // mean time of a token after the first; 0 if there was none
  uint64_t kv_bytes = 0;
  std::string kv_transport;
  std::string prefill_worker;
  std::string decode_worker;
  uint32_t cached_tokens = 0;
  double worst_gap_ms = 0;  // between two tokens of a choice
  std::string slo_class;
  std::string_view slo_result;
  std::optional<double> target_ttft_ms, target_tpot_ms;        // what was promised
  std::optional<double> predicted_ttft_ms, predicted_tpot_ms;  // when it was placed
};

// What all parts of one answer share.
struct AnswerHead {
  enum class Kind { kChat, kCompletion };
  Kind kind = Kind::kChat;
  std::string id;
  int64_t created = 0;  // seconds of Unix time
  std::string model;
  std::string fingerprint;  // equal = equal tokens; empty: null
  bool logprobs = false;
  bool include_usage = false;  // in a stream: every event has the field
};

// Writes answers in the two shapes of the OpenAI API, as whole bodies or as server-sent events.
class AnswerFormat {
 public:
  explicit AnswerFormat(AnswerHead head);

  // "data: {...}\n\n" each. `usage`: what there is so far, or nothing.
  void append_role_event(std::string& out, uint32_t index) const;  // chat's first of a choice
  void append_event(std::string& out, const ChoicePiece& piece,
                    const std::optional<Usage>& usage) const;
  // The last one, without choices.
  void append_closing_event(std::string& out, const std::optional<Usage>& usage,
                            const std::optional<Timings>& timings) const;
  // An error in mid-stream; append_done() follows it, as vLLM has it.
  static void append_error_event(std::string& out, const ApiError& error);
  static void append_done(std::string& out);

  std::string body(const std::vector<ChoicePiece>& choices, const Usage& usage,
                   const std::optional<Timings>& timings) const;

  const AnswerHead& head() const { return head_; }

 private:
  void append_choice(std::string& out, const ChoicePiece& piece, bool event) const;
  void append_scores(std::string& out, const std::vector<TokenScore>& scores) const;

  AnswerHead head_;
  std::string event_start_;  // up to the list of choices
};

}  // namespace baton::router
