#include "router/text/choice_text.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace baton::router {
namespace {

uint32_t count_characters(std::string_view utf8) {
  return static_cast<uint32_t>(std::ranges::count_if(
      utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; }));
}

}  // namespace

ChoiceText::ChoiceText(uint32_t index, text::Tokenizer tokenizer, Options options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      detokenizer_(tokenizer, options_.skip_special),
      matcher_(options_.stop) {
  piece_.index = index;
}

void ChoiceText::see(std::string_view text) { seen_characters_ += count_characters(text); }

template <class Top>
void ChoiceText::add_score(TokenId token, std::optional<float> logprob, const Top& top) {
  TokenScore score{tokenizer_.token_bytes(token), logprob, {}, seen_characters_};
  score.top.reserve(static_cast<size_t>(top.size()));
  for (const proto::TopLogprob& other : top) {
    score.top.emplace_back(tokenizer_.token_bytes(other.token()), other.logprob());
  }
  piece_.scores.push_back(std::move(score));
}

// SentencePiece writes a space in front of a text; where the text begins with `first`, it goes.
bool ChoiceText::has_written_space(TokenId first) const {
  const std::string_view text = tokenizer_.token_view(first);
  return text.starts_with(' ') && tokenizer_.decode({&first, 1}, false).size() < text.size();
}

// Stop strings are looked for in the answer alone.
void ChoiceText::echo(std::span<const TokenId> prompt, std::span<const proto::PromptScore> scores) {
  text::StreamDetokenizer echoed(tokenizer_, options_.skip_special);
  bool at_start = true;
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (options_.logprobs) {
      if (i == 0 || i > scores.size()) {
        add_score(prompt[i], std::nullopt, std::span<const proto::TopLogprob>());
      } else {
        add_score(prompt[i], scores[i - 1].logprob(), scores[i - 1].top());
      }
    }
    std::string text = echoed.push(prompt[i]);
    if (at_start && !text.empty()) {
      if (has_written_space(prompt[i])) text.erase(0, 1);
      at_start = false;
    }
    see(text);
    piece_.text += text;
  }
  const std::string rest = echoed.finish();
  see(rest);
  piece_.text += rest;
}

bool ChoiceText::add(const proto::TokenEvent& event, bool silent) {
  ++num_tokens_;
  if (options_.logprobs) add_score(event.token(), event.logprob(), event.top());
  if (silent) return false;
  const std::string text = detokenizer_.push(event.token());
  if (text.empty()) return false;
  see(text);
  if (options_.stop.empty()) {
    piece_.text += text;
    return false;
  }
  const text::StopMatcher::Outcome outcome = match(text);
  piece_.text += outcome.text;
  return outcome.stopped;
}

// A stop string that comes too early is text like any other.
text::StopMatcher::Outcome ChoiceText::match(const std::string& text) {
  if (num_tokens_ > options_.min_tokens) return matcher_.push(text);
  text::StopMatcher before = matcher_;
  text::StopMatcher::Outcome outcome = matcher_.push(text);
  if (!outcome.stopped) return outcome;
  matcher_ = text::StopMatcher(options_.stop);
  return {before.finish() + text, false};
}

void ChoiceText::finish(FinishReason reason) {
  if (!matcher_.stopped()) {
    const text::StopMatcher::Outcome outcome = matcher_.push(detokenizer_.finish());
    piece_.text += outcome.text;
    if (!outcome.stopped) piece_.text += matcher_.finish();
  }
  piece_.finish = reason;
}

void ChoiceText::take() {
  taken_finish_ = taken_finish_ || piece_.finish.has_value();
  piece_.text.clear();
  piece_.scores.clear();
  piece_.finish.reset();
}

}  // namespace baton::router
