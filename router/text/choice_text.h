#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/proto/worker.pb.h"
#include "common/text/detokenizer.h"
#include "common/text/tokenizer.h"
#include "router/openai/answer_format.h"

namespace baton::router {

// Turns the tokens of one choice into text, stopped at its stop strings, and their scores. What can
// be told gathers in piece(); whoever sends it takes it.
class ChoiceText {
 public:
  struct Options {
    bool skip_special = true;
    bool logprobs = false;
    std::vector<std::string> stop;
    uint32_t min_tokens = 0;  // a stop string that is complete among so many ends nothing
  };
  ChoiceText(uint32_t index, text::Tokenizer tokenizer, Options options);

  // The prompt in front of the answer. `scores`: of the prompt's tokens but the first, if asked
  // for.
  void echo(std::span<const TokenId> prompt, std::span<const proto::PromptScore> scores);
  // `silent`: the token ends the choice and has no text. True if a stop string ended the choice:
  // nothing more may be added.
  bool add(const proto::TokenEvent& event, bool silent);
  // No more comes: what was held back is told.
  void finish(FinishReason reason);

  bool finished() const { return piece_.finish.has_value() || taken_finish_; }
  uint32_t num_tokens() const { return num_tokens_; }
  // Whether an event is worth sending.
  bool has_news() const { return !piece_.text.empty() || piece_.finish.has_value(); }
  const ChoicePiece& piece() const { return piece_; }
  // Forgets what was told.
  void take();

 private:
  void see(std::string_view text);
  text::StopMatcher::Outcome match(const std::string& text);
  bool has_written_space(TokenId first) const;
  template <class Top>
  void add_score(TokenId token, std::optional<float> logprob, const Top& top);

  text::Tokenizer tokenizer_;
  Options options_;
  text::StreamDetokenizer detokenizer_;
  text::StopMatcher matcher_;
  ChoicePiece piece_;
  uint32_t num_tokens_ = 0;
  uint32_t seen_characters_ = 0;  // told, or held back as the beginning of a stop string
  bool taken_finish_ = false;
};

}  // namespace baton::router
