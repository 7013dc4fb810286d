#include "common/text/added_tokens.h"

#include <algorithm>

#include "common/text/utf8.h"

namespace baton::text {
namespace {

// White space as Unicode has it, which is is_python_space without the separators U+001C to U+001F.
bool is_white_space(char32_t code) {
  return is_python_space(code) && !(code >= 0x1c && code <= 0x1f);
}

size_t last_character_bytes(std::string_view text) {
  size_t n = 1;
  while (n < text.size() && (static_cast<uint8_t>(text[text.size() - n]) & 0xc0) == 0x80) ++n;
  return n;
}

// `begin` moved left over white space, not beyond `floor`.
size_t strip_left(std::string_view text, size_t begin, size_t floor) {
  while (begin > floor) {
    const size_t bytes = last_character_bytes(text.substr(0, begin));
    if (!is_white_space(next_utf8(text.substr(begin - bytes)).code)) break;
    begin -= bytes;
  }
  return begin;
}

size_t strip_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Step step = next_utf8(text.substr(end));
    if (!is_white_space(step.code)) break;
    end += step.bytes;
  }
  return end;
}

}  // namespace

void TokenTrie::add(std::string_view text, uint32_t value) {
  starts_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (char c : text) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c);
    const auto [at, is_new] = edges_.try_emplace(edge, static_cast<uint32_t>(values_.size()));
    if (is_new) values_.emplace_back();
    node = at->second;
  }
  values_[node] = value;
}

std::optional<TokenTrie::Hit> TokenTrie::longest(std::string_view text, size_t at) const {
  std::optional<Hit> hit;
  if (!starts_[static_cast<uint8_t>(text[at])]) return hit;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto next = edges_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    if (values_[node]) hit = Hit{*values_[node], i + 1 - at};
  }
  return hit;
}

result<AddedTokens> AddedTokens::create(std::vector<AddedToken> tokens,
                                        const Normalizer& normalizer) {
  // Rust's \w, which is what the reference asks.
  BATON_TRY(Regex word, Regex::compile(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])"));
  AddedTokens out(std::move(word));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const AddedToken& token = tokens[i];
    std::string text = token.text;
    if (token.normalized) {
      BATON_TRY(text, normalizer.apply(token.text));
    }
    if (!text.empty())
      (token.normalized ? out.normalized_ : out.raw_).add(text, static_cast<uint32_t>(i));
  }
  out.tokens_ = std::move(tokens);
  return out;
}

result<bool> AddedTokens::stands_alone(std::string_view text, size_t begin, size_t end,
                                       Regex::Scratch& scratch) const {
  if (begin > 0) {
    const size_t bytes = last_character_bytes(text.substr(0, begin));
    BATON_TRY(const auto found, word_.find(text.substr(begin - bytes, bytes), 0, scratch));
    if (found) return false;
  }
  if (end < text.size()) {
    BATON_TRY(const auto found, word_.find(text.substr(end, utf8_length(text[end])), 0, scratch));
    if (found) return false;
  }
  return true;
}

status AddedTokens::split(std::string_view text, bool normalized, bool special,
                          Regex::Scratch& scratch, std::vector<Part>& parts) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const auto hit = trie.longest(text, at);
    if (!hit) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[hit->value];
    size_t begin = at, end = at + hit->bytes;
    at = end;
    if (token.special && !special) continue;
    if (token.single_word) {
      BATON_TRY(const bool alone, stands_alone(text, begin, end, scratch));
      if (!alone) continue;
    }
    if (token.lstrip) begin = std::max(strip_left(text, begin, std::min(begin, done)), done);
    if (token.rstrip) end = strip_right(text, end);
    if (begin > done) parts.push_back({std::nullopt, text.substr(done, begin - done)});
    parts.push_back({token.id, {}});
    done = end;
  }
  if (done < text.size()) parts.push_back({std::nullopt, text.substr(done)});
  return {};
}

std::string AddedTokens::break_special(std::string_view text, std::string_view guard) const {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = utf8_length(text[at]);
    out += text.substr(at, bytes);
    for (const TokenTrie* trie : {&raw_, &normalized_}) {
      const auto hit = trie->longest(text, at);
      if (hit && hit->bytes > bytes && tokens_[hit->value].special) {
        out += guard;
        break;
      }
    }
    at += bytes;
  }
  return out;
}

}  // namespace baton::text
