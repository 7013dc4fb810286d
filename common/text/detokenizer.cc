#include "common/text/detokenizer.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "common/text/utf8.h"

namespace baton::text {

std::string StreamDetokenizer::push(TokenId id) {
  std::string out;
  if (skip_special_ && tokenizer_.is_special(id)) return out;
  held_ += tokenizer_.token_view(id);
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Utf8Step step = next_utf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) break;
    out += step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.bytes) : kReplacement;
    rest.remove_prefix(step.bytes);
  }
  held_.erase(0, held_.size() - rest.size());
  return out;
}

std::string StreamDetokenizer::finish() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacement);
}

StopMatcher::Automaton::Automaton(std::string stop)
    : text(std::move(stop)), fallback(text.size() + 1, 0) {
  for (size_t length = 1, fit = 0; length < text.size(); ++length) {
    while (fit > 0 && text[length] != text[fit]) fit = fallback[fit];
    if (text[length] == text[fit]) ++fit;
    fallback[length + 1] = fit;
  }
}

bool StopMatcher::Automaton::advance(char c) {
  while (matched > 0 && text[matched] != c) matched = fallback[matched];
  if (text[matched] == c) ++matched;
  return matched == text.size();
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  std::erase(stops, "");
  // The longest first: of those that end at one byte, it is the one found.
  std::ranges::stable_sort(stops, std::greater<>(), &std::string::size);
  for (std::string& stop : stops) automata_.emplace_back(std::move(stop));
}

StopMatcher::Outcome StopMatcher::push(std::string_view text) {
  if (found_) return {"", true};
  if (automata_.empty()) return {std::string(text), false};
  for (size_t i = 0; i < text.size(); ++i) {
    for (size_t which = 0; which < automata_.size(); ++which) {
      if (!automata_[which].advance(text[i])) continue;
      held_ += text.substr(0, i + 1);
      held_.resize(held_.size() - automata_[which].text.size());
      found_ = which;
      return {std::exchange(held_, {}), true};
    }
  }
  held_ += text;
  size_t keep = 0;
  for (const Automaton& one : automata_) keep = std::max(keep, one.matched);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return {std::move(out), false};
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace baton::text
