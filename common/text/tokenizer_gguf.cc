// Tokenizers out of GGUF metadata (tokenizer.ggml.*).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <unordered_map>

#include "common/formats/utf8.h"
#include "common/text/byte_level.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_definition.h"

namespace baton::text {
namespace {

using formats::GgufMetadata;

// tokenizer.ggml.token_type
enum class GgufTokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What a value of tokenizer.ggml.pre stands for.
struct Family {
  std::vector<std::string_view> patterns;
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
};

std::optional<Family> family_of(std::string_view pre) {
  const Family gpt2{{gpt2_pattern()}};
  const Family digits{{R"(\p{N})", gpt2_pattern()}};
  const Family llama3{{kLlama3Pattern}, false, true, true};
  const Family qwen2{{kQwen2Pattern}, true};
  const Family tekken{{kTekkenPattern}, false, true, true};
  static const std::map<std::string_view, Family> kFamilies = {
      {"default", gpt2},     {"gpt-2", gpt2},
      {"gpt2", gpt2},        {"mpt", gpt2},
      {"olmo", gpt2},        {"smollm", digits},
      {"starcoder", digits}, {"refact", digits},
      {"command-r", digits}, {"llama3", llama3},
      {"llama-v3", llama3},  {"llama-bpe", llama3},
      {"qwen2", qwen2},      {"deepseek-r1-qwen", qwen2},
      {"tekken", tekken},
  };
  const auto found = kFamilies.find(pre);
  return found == kFamilies.end() ? std::nullopt : std::optional(found->second);
}

class GgufLoader {
 public:
  GgufLoader(const GgufMetadata& metadata, std::string_view source) : metadata_(metadata) {
    out_.source = source;
  }

  result<TokenizerDefinition> run() {
    BATON_TRY(const std::string_view model, metadata_.string("tokenizer.ggml.model"));
    BATON_TRY(texts_, metadata_.strings("tokenizer.ggml.tokens"));
    BATON_CHECK_OK(read_types());
    if (model == "gpt2") {
      BATON_CHECK_OK(byte_level());
    } else if (model == "llama") {
      BATON_CHECK_OK(sentencepiece());
    } else {
      return unsupported("tokenizer.ggml.model",
                         fmt::format("is '{}', a kind of tokenizer that is not supported "
                                     "(gpt2 and llama are)",
                                     formats::printable(model)));
    }
    add_special_tokens();
    BATON_CHECK_OK(read_ends());
    if (metadata_.has("tokenizer.chat_template")) {
      BATON_TRY(out_.chat_template, text("tokenizer.chat_template"));
    }
    return std::move(out_);
  }

 private:
  Error unsupported(std::string_view key, std::string_view reason) const {
    Error e = metadata_.bad(key, reason);
    e.code = Errc::kUnsupported;
    return e;
  }

  result<std::string> text(std::string_view key) const {
    BATON_TRY(const std::string_view value, metadata_.string(key));
    return std::string(value);
  }

  result<bool> flag(std::string_view key, bool fallback) const {
    if (!metadata_.has(key)) return fallback;
    return metadata_.boolean(key);
  }

  GgufTokenType type(size_t id) const {
    return types_.empty() ? GgufTokenType::kNormal : static_cast<GgufTokenType>(types_[id]);
  }
  bool is_special(size_t id) const {
    return type(id) == GgufTokenType::kControl || type(id) == GgufTokenType::kUnknown;
  }

  status read_types() {
    if (!metadata_.has("tokenizer.ggml.token_type")) return {};
    BATON_TRY(types_, metadata_.ints("tokenizer.ggml.token_type"));
    if (types_.size() == texts_.size()) return {};
    return metadata_.bad("tokenizer.ggml.token_type",
                         fmt::format("has {} entries for {} tokens", types_.size(), texts_.size()));
  }

  status byte_level() {
    std::string_view pre = "default";
    if (metadata_.has("tokenizer.ggml.pre")) {
      BATON_TRY(pre, metadata_.string("tokenizer.ggml.pre"));
    }
    const auto family = family_of(pre);
    if (!family) {
      return unsupported("tokenizer.ggml.pre",
                         fmt::format("is '{}', a way to split text that is not supported",
                                     formats::printable(pre)));
    }
    for (std::string_view pattern : family->patterns) {
      BATON_TRY(Regex regex, Regex::compile(pattern));
      out_.pre_tokenizer.splits.push_back({std::move(regex)});
    }
    if (family->nfc) out_.normalizer.add(UnicodeForm::kNfc);
    out_.bpe.ignore_merges = family->ignore_merges;
    add_bos_ = family->add_bos;
    for (size_t id = 0; id < texts_.size(); ++id) {
      const std::string literal(texts_[id]);
      const bool plain = type(id) == GgufTokenType::kNormal;
      const auto bytes = bytes_of_byte_level(literal);
      out_.tokens.push_back(
          {plain && bytes ? *bytes : "", plain && bytes ? *bytes : literal, is_special(id)});
    }
    return read_merges();
  }

  // "LEFT RIGHT", in the order of their ranks.
  status read_merges() {
    BATON_TRY(const auto lines, metadata_.strings("tokenizer.ggml.merges"));
    std::unordered_map<std::string_view, TokenId> ids;
    for (size_t id = 0; id < texts_.size(); ++id) ids.try_emplace(texts_[id], TokenId(id));
    std::string merged;
    for (size_t rank = 0; rank < lines.size(); ++rank) {
      const std::string_view line = lines[rank];
      const size_t space = line.find(' ', 1);
      const auto bad = [&](std::string_view why) {
        return metadata_.bad("tokenizer.ggml.merges", fmt::format("has entry {}, '{}', {}", rank,
                                                                  formats::printable(line), why));
      };
      if (space == std::string_view::npos || space + 1 == line.size()) {
        return bad("which is not two tokens");
      }
      merged.assign(line.substr(0, space)).append(line.substr(space + 1));
      const auto left = ids.find(line.substr(0, space)), right = ids.find(line.substr(space + 1));
      const auto both = ids.find(merged);
      if (left == ids.end() || right == ids.end() || both == ids.end()) {
        return bad("whose tokens are not in the vocabulary");
      }
      out_.merges.push_back(
          {left->second, right->second, both->second, static_cast<uint32_t>(rank)});
    }
    return {};
  }

  // SentencePiece's BPE: characters, U+2581 for the space, and of all pairs that make a token the
  // one of the highest score first.
  status sentencepiece() {
    BATON_TRY(scores_, metadata_.floats("tokenizer.ggml.scores"));
    if (scores_.size() != texts_.size()) {
      return metadata_.bad("tokenizer.ggml.scores", fmt::format("has {} entries for {} tokens",
                                                                scores_.size(), texts_.size()));
    }
    if (!std::ranges::all_of(scores_, [](float s) { return std::isfinite(s); })) {
      return metadata_.bad("tokenizer.ggml.scores", "has one that is not finite");
    }
    out_.bpe.byte_level = false;
    out_.bpe.byte_fallback = true;
    out_.bpe.fuse_unknown = true;
    out_.byte_tokens.fill(-1);
    out_.strip_first_space = true;
    add_bos_ = true;
    BATON_TRY(const bool prefix, flag("tokenizer.ggml.add_space_prefix", true));
    if (prefix) out_.normalizer.add(Normalizer::Prepend{std::string(kMetaspace)});
    out_.normalizer.add(Normalizer::Replace{" ", std::string(kMetaspace)});
    if (metadata_.has("tokenizer.ggml.unknown_token_id")) {
      BATON_TRY(out_.bpe.unknown, id("tokenizer.ggml.unknown_token_id"));
    }
    Normalizer spaces;
    spaces.add(Normalizer::Replace{std::string(kMetaspace), " "});
    for (size_t id = 0; id < texts_.size(); ++id) {
      TokenizerDefinition::Token token{"", std::string(texts_[id]), is_special(id)};
      if (type(id) == GgufTokenType::kByte) {
        const auto byte = byte_of_token(texts_[id]);
        if (!byte) {
          return metadata_.bad("tokenizer.ggml.tokens",
                               fmt::format("has a byte token, {}, that is not written <0x00> to "
                                           "<0xFF>",
                                           id));
        }
        out_.byte_tokens[*byte] = static_cast<TokenId>(id);
        token.bytes = std::string(1, static_cast<char>(*byte));
      } else if (type(id) == GgufTokenType::kNormal) {
        BATON_TRY(std::string plain, spaces.apply(texts_[id]));
        token.model_text = std::exchange(token.bytes, std::move(plain));
      }
      out_.tokens.push_back(std::move(token));
    }
    merges_of_scores();
    return {};
  }

  void merges_of_scores() {
    constexpr size_t kMaxMergedBytes = 256;  // each cut is tried; real pieces have 16 characters
    std::unordered_map<std::string_view, TokenId> ids;
    std::vector<TokenId> by_score;
    for (size_t id = 0; id < out_.tokens.size(); ++id) {
      const std::string_view text = out_.tokens[id].model_text;
      if (text.empty() || text.size() > kMaxMergedBytes) continue;
      ids.try_emplace(text, static_cast<TokenId>(id));
      by_score.push_back(static_cast<TokenId>(id));
    }
    const auto score = [this](TokenId id) { return scores_[static_cast<size_t>(id)]; };
    std::ranges::stable_sort(by_score, std::greater<>(), score);
    uint32_t rank = 0;
    for (size_t i = 0; i < by_score.size(); ++i) {
      if (i > 0 && score(by_score[i]) != score(by_score[i - 1])) ++rank;
      const std::string_view text = out_.tokens[static_cast<size_t>(by_score[i])].model_text;
      for (size_t cut = 1; cut < text.size(); ++cut) {
        const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
        if (left == ids.end() || right == ids.end()) continue;
        out_.merges.push_back({left->second, right->second, by_score[i], rank});
      }
    }
  }

  // Control tokens are found as they stand, user-defined ones too.
  void add_special_tokens() {
    for (size_t id = 0; id < texts_.size(); ++id) {
      if (texts_[id].empty() || (!is_special(id) && type(id) != GgufTokenType::kUserDefined)) {
        continue;
      }
      AddedToken token;
      token.id = static_cast<TokenId>(id);
      token.text = texts_[id];
      token.special = is_special(id);
      out_.added.push_back(std::move(token));
    }
  }

  result<TokenId> id(std::string_view key) const {
    BATON_TRY(const uint64_t value, metadata_.uint(key));
    if (value < texts_.size()) return static_cast<TokenId>(value);
    return metadata_.bad(key, fmt::format("is {}, but there are {} tokens", value, texts_.size()));
  }

  // BOS, and every token that ends a turn or a text.
  status read_ends() {
    if (metadata_.has("tokenizer.ggml.bos_token_id")) {
      BATON_TRY(out_.bos, id("tokenizer.ggml.bos_token_id"));
    }
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                            "tokenizer.ggml.eom_token_id"}) {
      if (!metadata_.has(key)) continue;
      BATON_TRY(const TokenId end, id(key));
      out_.eos.push_back(end);
    }
    // Files name one end of several: Llama 3's turn ends in <|eot_id|>, its texts in another.
    static constexpr std::string_view kEnds[] = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>",
                                                 "<|end_of_text|>", "<|endoftext|>"};
    for (size_t id = 0; id < texts_.size(); ++id) {
      const bool ends = type(id) == GgufTokenType::kControl &&
                        std::ranges::find(kEnds, texts_[id]) != std::end(kEnds);
      if (ends) out_.eos.push_back(static_cast<TokenId>(id));
    }
    BATON_TRY(const bool add_bos, flag("tokenizer.ggml.add_bos_token", add_bos_));
    BATON_TRY(const bool add_eos, flag("tokenizer.ggml.add_eos_token", false));
    if (add_bos && out_.bos) out_.prefix = {*out_.bos};
    if (add_eos && !out_.eos.empty()) out_.suffix = {out_.eos[0]};
    return {};
  }

  const GgufMetadata& metadata_;
  TokenizerDefinition out_;
  std::vector<std::string_view> texts_;
  std::vector<int64_t> types_;  // by id; empty: all normal
  std::vector<float> scores_;
  bool add_bos_ = false;
};

}  // namespace

result<Tokenizer> Tokenizer::from_gguf(const formats::GgufFile& file) {
  const auto maps = file.tensors().maps();
  const std::string source = maps.empty() ? "GGUF metadata" : maps[0].path();
  BATON_TRY(TokenizerDefinition definition, GgufLoader(file.metadata(), source).run());
  return create(std::move(definition));
}

result<Tokenizer> Tokenizer::load(const std::filesystem::path& model) {
  std::error_code ignored;
  if (std::filesystem::is_directory(model, ignored)) return from_huggingface(model);
  BATON_TRY(const formats::GgufFile file, formats::GgufFile::open(model));
  return from_gguf(file);
}

}  // namespace baton::text
