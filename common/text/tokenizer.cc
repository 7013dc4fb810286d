#include "common/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/text/detokenizer.h"
#include "common/text/tokenizer_definition.h"
#include "common/text/utf8.h"

namespace baton::text {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr size_t kMaxTokens = size_t{1} << 24;
// A noncharacter: no text that means anything has it.
constexpr std::string_view kGuard = "\xef\xb7\x90";  // U+FDD0

// Lengths before contents, so that no two descriptions read the same.
class Description {
 public:
  Description& add(std::string_view text) {
    add(text.size());
    bytes_ += text;
    return *this;
  }
  template <class T>
  requires std::is_integral_v<T> Description& add(T number) {
    const auto wide = static_cast<uint64_t>(number);
    for (int shift = 0; shift < 64; shift += 8) bytes_ += static_cast<char>(wide >> shift);
    return *this;
  }
  formats::Fingerprint fingerprint() const {
    return formats::fingerprint(std::as_bytes(std::span(bytes_)), {});
  }

 private:
  std::string bytes_ = "baton tokenizer 1";
};

void describe(Description& out, const Normalizer& normalizer) {
  for (const auto& step : normalizer.steps()) {
    out.add(step.index());
    if (const auto* form = std::get_if<UnicodeForm>(&step)) out.add(static_cast<int>(*form));
    if (const auto* prepend = std::get_if<Normalizer::Prepend>(&step)) out.add(prepend->text);
    if (const auto* replace = std::get_if<Normalizer::Replace>(&step)) {
      out.add(replace->from).add(replace->to);
    }
  }
}

formats::Fingerprint fingerprint_of(const TokenizerDefinition& d) {
  Description out;
  for (const auto& token : d.tokens) out.add(token.model_text).add(token.bytes).add(token.special);
  for (const auto& token : d.added) {
    out.add(token.id).add(token.text).add(token.special).add(token.normalized);
    out.add(token.single_word).add(token.lstrip).add(token.rstrip);
  }
  for (const auto& merge : d.merges) {
    out.add(merge.left).add(merge.right).add(merge.merged).add(merge.rank);
  }
  out.add(d.bpe.byte_level).add(d.bpe.byte_fallback).add(d.bpe.ignore_merges);
  out.add(d.bpe.unknown.value_or(-1)).add(d.bpe.fuse_unknown);
  describe(out, d.normalizer);
  for (const auto& split : d.pre_tokenizer.splits) {
    out.add(split.regex.pattern()).add(static_cast<int>(split.behavior)).add(split.invert);
  }
  out.add(d.pre_tokenizer.space).add(d.pre_tokenizer.prepend.text);
  out.add(static_cast<int>(d.pre_tokenizer.prepend.when));
  for (const auto* ids : {&d.prefix, &d.suffix, &d.eos}) {
    out.add(ids->size());
    for (TokenId id : *ids) out.add(id);
  }
  return out.fingerprint();
}

std::string without_guards(std::string_view text) {
  std::string out;
  for (size_t at = text.find(kGuard); at != std::string_view::npos; at = text.find(kGuard)) {
    out += text.substr(0, at);
    text.remove_prefix(at + kGuard.size());
  }
  return out += text;
}

}  // namespace

struct Tokenizer::State {
  struct Token {
    std::string_view bytes;  // into `texts`
    bool special;
  };

  std::string source;
  std::string texts;  // of all tokens: model texts and bytes
  std::vector<Token> tokens;
  std::optional<AddedTokens> added;
  std::optional<Bpe> bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::vector<TokenId> prefix, suffix, eos;
  std::optional<TokenId> bos;
  bool strip_first_space = false;
  std::string chat_template;
  formats::Fingerprint fingerprint;
};

namespace {

// One call of encode().
class Encoding {
 public:
  Encoding(const AddedTokens& added, const Bpe& bpe, const Normalizer& normalizer,
           const PreTokenizer& pre_tokenizer, EncodeOptions options, std::vector<TokenId>& out)
      : added_(added),
        bpe_(bpe),
        normalizer_(normalizer),
        pre_tokenizer_(pre_tokenizer),
        options_(options),
        out_(out) {}

  status run(std::string_view text) {
    std::vector<AddedTokens::Part> parts;
    BATON_CHECK_OK(added_.split(text, false, options_.parse_special, scratch_, parts));
    for (const auto& part : parts) {
      if (part.token) {
        out_.push_back(*part.token);
      } else {
        BATON_CHECK_OK(normalize(part.text, part.text.data() == text.data()));
      }
    }
    return {};
  }

 private:
  status normalize(std::string_view text, bool at_front) {
    std::string normalized;
    if (!normalizer_.empty()) {
      BATON_TRY(normalized, normalizer_.apply(text));
      text = normalized;
    }
    std::vector<AddedTokens::Part> parts;
    BATON_CHECK_OK(added_.split(text, true, options_.parse_special, scratch_, parts));
    for (const auto& part : parts) {
      if (part.token) {
        out_.push_back(*part.token);
      } else {
        BATON_CHECK_OK(prepare(part.text, at_front && part.text.data() == text.data()));
      }
    }
    return {};
  }

  status prepare(std::string_view text, bool at_front) {
    std::string changed;
    if (options_.guarded && text.find(kGuard) != std::string_view::npos) {
      changed = without_guards(text);
      text = changed;
    }
    if (!pre_tokenizer_.space.empty() || !pre_tokenizer_.prepend.text.empty()) {
      changed = pre_tokenizer_.prepare(text, at_front);
      text = changed;
    }
    BATON_CHECK_OK(pre_tokenizer_.split(text, scratch_, pieces_));
    for (std::string_view piece : pieces_) bpe_.encode(piece, bpe_scratch_, out_);
    return {};
  }

  const AddedTokens& added_;
  const Bpe& bpe_;
  const Normalizer& normalizer_;
  const PreTokenizer& pre_tokenizer_;
  const EncodeOptions options_;
  std::vector<TokenId>& out_;
  Regex::Scratch scratch_;
  Bpe::Scratch bpe_scratch_;
  std::vector<std::string_view> pieces_;
};

status check_ids(const TokenizerDefinition& d) {
  const auto bad = [&d](std::string_view what, TokenId id) -> status {
    return error(Errc::kDataCorrupt, fmt::format("{}: {} {} is not one of the {} tokens", d.source,
                                                 what, id, d.tokens.size()));
  };
  const auto is_token = [&d](TokenId id) {
    return id >= 0 && static_cast<size_t>(id) < d.tokens.size();
  };
  if (d.tokens.empty() || d.tokens.size() > kMaxTokens) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{}: {} tokens are no vocabulary", d.source, d.tokens.size()));
  }
  for (const auto& token : d.added) {
    if (!is_token(token.id)) return bad("the added token", token.id);
  }
  for (const auto& [what, ids] : {std::pair{"the token before a text,", &d.prefix},
                                  {"the token after a text,", &d.suffix},
                                  {"the EOS token", &d.eos}}) {
    for (TokenId id : *ids) {
      if (!is_token(id)) return bad(what, id);
    }
  }
  if (d.bos && !is_token(*d.bos)) return bad("the BOS token", *d.bos);
  if (d.bpe.unknown && !is_token(*d.bpe.unknown)) return bad("the unknown token", *d.bpe.unknown);
  return {};
}

}  // namespace

result<Tokenizer> Tokenizer::create(TokenizerDefinition definition) {
  TokenizerDefinition& d = definition;
  BATON_CHECK_OK(check_ids(d));
  for (auto at = d.eos.begin(); at != d.eos.end();) {
    at = std::find(d.eos.begin(), at, *at) == at ? at + 1 : d.eos.erase(at);
  }
  if (d.bpe.byte_level) {
    d.byte_tokens.fill(-1);
    for (size_t id = 0; id < d.tokens.size(); ++id) {
      const std::string& text = d.tokens[id].model_text;
      if (text.size() == 1) d.byte_tokens[static_cast<uint8_t>(text[0])] = static_cast<TokenId>(id);
    }
  }
  auto state = std::make_shared<State>();
  state->fingerprint = fingerprint_of(d);
  size_t bytes = 0;
  for (const auto& token : d.tokens) bytes += token.model_text.size() + token.bytes.size();
  state->texts.reserve(bytes);  // views into it must stay
  const auto keep = [&texts = state->texts](std::string_view text) {
    texts += text;
    return std::string_view(texts).substr(texts.size() - text.size());
  };
  std::vector<std::string_view> model_texts;
  for (const auto& token : d.tokens) {
    model_texts.push_back(keep(token.model_text));
    state->tokens.push_back({keep(token.bytes), token.special});
  }
  state->bpe.emplace(d.bpe, model_texts, d.byte_tokens, d.merges);
  BATON_TRY(state->added, AddedTokens::create(std::move(d.added), d.normalizer));
  state->source = std::move(d.source);
  state->normalizer = std::move(d.normalizer);
  state->pre_tokenizer = std::move(d.pre_tokenizer);
  state->prefix = std::move(d.prefix);
  state->suffix = std::move(d.suffix);
  state->eos = std::move(d.eos);
  state->bos = d.bos;
  state->strip_first_space = d.strip_first_space;
  state->chat_template = std::move(d.chat_template);
  return Tokenizer(std::move(state));
}

result<std::vector<TokenId>> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  if (utf8.size() > kMaxTextBytes) {
    return error(Errc::kResourceExhausted,
                 fmt::format("a text of {} bytes is too long to tokenize", utf8.size()));
  }
  if (const auto at = find_invalid_utf8(utf8)) {
    return error(Errc::kInvalidArgument,
                 fmt::format("the text is not valid UTF-8 at byte {}", *at));
  }
  std::vector<TokenId> out;
  if (options.add_special) out = state_->prefix;
  Encoding encoding(*state_->added, *state_->bpe, state_->normalizer, state_->pre_tokenizer,
                    options, out);
  BATON_CHECK_OK(encoding.run(utf8));
  if (options.add_special) {
    out.insert(out.end(), state_->suffix.begin(), state_->suffix.end());
  }
  return out;
}

std::string Tokenizer::guard(std::string_view content) const {
  return find_invalid_utf8(content) ? std::string(content)
                                    : state_->added->break_special(content, kGuard);
}

size_t Tokenizer::vocab_size() const { return state_->tokens.size(); }
std::optional<TokenId> Tokenizer::bos() const { return state_->bos; }
std::span<const TokenId> Tokenizer::eos() const { return state_->eos; }
const std::string& Tokenizer::chat_template() const { return state_->chat_template; }
const std::string& Tokenizer::source() const { return state_->source; }
const formats::Fingerprint& Tokenizer::fingerprint() const { return state_->fingerprint; }

std::string Tokenizer::token_bytes(TokenId id) const { return std::string(token_view(id)); }

std::string_view Tokenizer::token_view(TokenId id) const {
  const auto index = static_cast<size_t>(id);
  return id >= 0 && index < state_->tokens.size() ? state_->tokens[index].bytes
                                                  : std::string_view();
}

bool Tokenizer::is_special(TokenId id) const {
  const auto index = static_cast<size_t>(id);
  return id >= 0 && index < state_->tokens.size() && state_->tokens[index].special;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  StreamDetokenizer stream(*this, skip_special);
  std::string out;
  for (TokenId id : ids) out += stream.push(id);
  out += stream.finish();
  if (state_->strip_first_space && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

}  // namespace baton::text
