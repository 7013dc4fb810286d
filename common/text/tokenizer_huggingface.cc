// Tokenizers out of a directory with tokenizer.json.
#include <fmt/format.h>

#include <functional>
#include <unordered_map>

#include "common/formats/hf_json.h"
#include "common/formats/mapped_file.h"
#include "common/formats/utf8.h"
#include "common/text/byte_level.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_definition.h"
#include "common/text/tokenizer_json.h"
#include "common/text/utf8.h"

namespace baton::text {
namespace {

using formats::JsonFields;

constexpr size_t kMaxTokens = size_t{1} << 24;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

class HuggingFaceLoader {
 public:
  explicit HuggingFaceLoader(std::filesystem::path directory) : directory_(std::move(directory)) {}

  result<TokenizerDefinition> run() {
    const auto path = directory_ / "tokenizer.json";
    out_.source = path.string();
    BATON_TRY(const boost::json::value json,
              formats::read_json_file(path, formats::kTokenizerJsonLimits));
    BATON_TRY(const JsonFields root, JsonFields::root(json, out_.source));
    BATON_TRY(const JsonFields model, root.fields("model"));
    BATON_TRY(out_.normalizer, read_normalizer(root));
    BATON_TRY(PreTokenizerJson pre, read_pre_tokenizer(root));
    out_.pre_tokenizer = std::move(pre.pre_tokenizer);
    BATON_CHECK_OK(read_model(model, pre.byte_level));
    BATON_CHECK_OK(read_added_tokens(root));
    BATON_CHECK_OK(read_post_processor(root));
    BATON_CHECK_OK(read_decoder(root));
    BATON_CHECK_OK(read_configs());
    BATON_CHECK_OK(read_chat_template_file());
    return std::move(out_);
  }

 private:
  static Error unsupported(Error e) {
    e.code = Errc::kUnsupported;
    return e;
  }

  static result<bool> flag(const JsonFields& fields, std::string_view field) {
    if (!fields.has(field)) return false;
    return fields.boolean(field);
  }

  // ---- model

  status read_model(const JsonFields& model, bool byte_level) {
    std::string_view type = "BPE";  // which older files do not say
    if (model.has("type")) {
      BATON_TRY(type, model.string("type"));
    }
    if (type != "BPE") {
      return unsupported(model.bad("type", fmt::format("is '{}', a kind of tokenizer that is not "
                                                       "supported (BPE is)",
                                                       formats::printable(type))));
    }
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!model.has(field)) continue;
      BATON_TRY(const std::string_view text, model.string(field));
      if (!text.empty()) return unsupported(model.bad(field, "is set, which is not supported"));
    }
    if (model.has("dropout")) {
      BATON_TRY(const double dropout, model.number("dropout"));
      if (dropout != 0) return unsupported(model.bad("dropout", "is set, which is not supported"));
    }
    BATON_TRY(out_.bpe.byte_fallback, flag(model, "byte_fallback"));
    BATON_TRY(out_.bpe.fuse_unknown, flag(model, "fuse_unk"));
    BATON_TRY(out_.bpe.ignore_merges, flag(model, "ignore_merges"));
    out_.bpe.byte_level = byte_level;
    if (!byte_level && !out_.bpe.byte_fallback) {
      return unsupported(model.bad("byte_fallback",
                                   "is off and nothing is ByteLevel: BPE that "
                                   "cannot write each byte is not supported"));
    }
    BATON_CHECK_OK(read_vocabulary(model));
    if (model.has("unk_token")) {
      BATON_TRY(const std::string_view unknown, model.string("unk_token"));
      const auto found = ids_.find(unknown);
      if (found == ids_.end()) return model.bad("unk_token", "is not in the vocabulary");
      out_.bpe.unknown = found->second;
    }
    return read_merges(model);
  }

  result<TokenId> token_id(const JsonFields& fields, std::string_view field,
                           const boost::json::value& json) {
    uint64_t id = 0;
    if (!formats::json_to_uint(json, &id) || id >= kMaxTokens) {
      return fields.bad(field, "has an id that is none");
    }
    return static_cast<TokenId>(id);
  }

  TokenizerDefinition::Token& token(TokenId id) {
    const auto index = static_cast<size_t>(id);
    if (index >= out_.tokens.size()) out_.tokens.resize(index + 1);
    return out_.tokens[index];
  }

  status read_vocabulary(const JsonFields& model) {
    BATON_TRY(const JsonFields vocabulary, model.fields("vocab"));
    out_.byte_tokens.fill(-1);
    ids_.reserve(vocabulary.object().size());
    // The highest id decides how much is allocated: it must be about as high as there are tokens.
    const size_t most = 2 * vocabulary.object().size() + 65'536;
    for (const auto& [text, json] : vocabulary.object()) {
      BATON_TRY(const TokenId id, token_id(model, "vocab", json));
      if (static_cast<size_t>(id) >= most) return model.bad("vocab", "has an id that is too high");
      ids_.emplace(text, id);
      BATON_CHECK_OK(add_model_token(id, text));
    }
    return {};
  }

  status add_model_token(TokenId id, std::string_view text) {
    auto& out = token(id);
    if (out_.bpe.byte_level) {
      const auto bytes = bytes_of_byte_level(text);
      out.model_text = bytes.value_or("");
      out.bytes = bytes.value_or(std::string(text));
      return {};
    }
    out.model_text = text;
    BATON_TRY(out.bytes, spaces_.apply(text));
    if (const auto byte = byte_of_token(text)) {
      out.bytes = std::string(1, static_cast<char>(*byte));
      out_.byte_tokens[*byte] = id;
    }
    return {};
  }

  status read_merges(const JsonFields& model) {
    BATON_TRY(const boost::json::array* merges, model.array("merges"));
    std::string merged;
    for (size_t rank = 0; rank < merges->size(); ++rank) {
      std::string_view left, right;
      const bool two = two_tokens((*merges)[rank], left, right);
      if (!two)
        return model.bad("merges", fmt::format("has entry {} that is not two tokens", rank));
      merged.assign(left).append(right);
      const auto a = ids_.find(left), b = ids_.find(right), both = ids_.find(merged);
      if (a == ids_.end() || b == ids_.end() || both == ids_.end()) {
        return model.bad("merges",
                         fmt::format("has entry {}, '{}' and '{}', which are not in the "
                                     "vocabulary",
                                     rank, formats::printable(left), formats::printable(right)));
      }
      out_.merges.push_back({a->second, b->second, both->second, static_cast<uint32_t>(rank)});
    }
    return {};
  }

  // "left right" or ["left", "right"].
  static bool two_tokens(const boost::json::value& json, std::string_view& left,
                         std::string_view& right) {
    if (const auto* pair = json.if_array()) {
      if (pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string()) return false;
      left = (*pair)[0].get_string();
      right = (*pair)[1].get_string();
      return true;
    }
    if (!json.is_string()) return false;
    const std::string_view line = json.get_string();
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return false;
    }
    left = line.substr(0, space);
    right = line.substr(space + 1);
    return true;
  }

  // ---- added tokens

  status read_added_tokens(const JsonFields& root) {
    if (!root.has("added_tokens")) return {};
    BATON_TRY(const boost::json::array* list, root.array("added_tokens"));
    const size_t most = out_.tokens.size() + 2 * list->size() + 65'536;
    for (const auto& json : *list) {
      BATON_TRY(const JsonFields fields, JsonFields::root(json, out_.source + ", an added token"));
      AddedToken added;
      BATON_TRY(const uint64_t id, fields.uint("id"));
      if (id >= most) return fields.bad("id", "is too high");
      added.id = static_cast<TokenId>(id);
      BATON_TRY(const std::string_view text, fields.string("content"));
      added.text = text;
      BATON_TRY(added.special, flag(fields, "special"));
      BATON_TRY(added.normalized, flag(fields, "normalized"));
      BATON_TRY(added.single_word, flag(fields, "single_word"));
      BATON_TRY(added.lstrip, flag(fields, "lstrip"));
      BATON_TRY(added.rstrip, flag(fields, "rstrip"));
      auto& out = token(added.id);
      out.bytes = added.text;
      if (added.normalized) {
        BATON_TRY(out.bytes, out_.normalizer.apply(text));
      }
      if (!out_.bpe.byte_level) {
        BATON_TRY(out.bytes, spaces_.apply(out.bytes));
      }
      out.special = added.special;
      if (added.special) out.model_text.clear();  // merging never makes a control token
      ids_.insert_or_assign(added.text, added.id);
      if (!added.text.empty()) out_.added.push_back(std::move(added));
    }
    return {};
  }

  // ---- what goes around a text

  status read_post_processor(const JsonFields& root) {
    if (!root.has("post_processor")) return {};
    BATON_TRY(const JsonFields outer, root.fields("post_processor"));
    BATON_TRY(const std::string_view type, outer.string("type"));
    if (type != "Sequence") return add_post_processor(outer, type);
    BATON_TRY(const boost::json::array* steps, outer.array("processors"));
    for (const auto& json : *steps) {
      BATON_TRY(const JsonFields step,
                JsonFields::root(json, out_.source + ", a step of post_processor"));
      BATON_TRY(const std::string_view step_type, step.string("type"));
      BATON_CHECK_OK(add_post_processor(step, step_type));
    }
    return {};
  }

  status add_post_processor(const JsonFields& step, std::string_view type) {
    if (type == "ByteLevel") return {};  // only changes offsets
    if (type != "TemplateProcessing") {
      return unsupported(step.bad(
          "type", fmt::format("is '{}', which is not supported", formats::printable(type))));
    }
    BATON_TRY(const boost::json::array* single, step.array("single"));
    bool after_text = false;
    for (const auto& json : *single) {
      BATON_TRY(const JsonFields part, JsonFields::root(json, out_.source + ", a part of single"));
      if (part.has("Sequence")) {
        after_text = true;
        continue;
      }
      BATON_TRY(const JsonFields special, part.fields("SpecialToken"));
      BATON_TRY(const std::string_view name, special.string("id"));
      BATON_CHECK_OK(add_special(step, name, after_text ? out_.suffix : out_.prefix));
    }
    return {};
  }

  status add_special(const JsonFields& step, std::string_view name, std::vector<TokenId>& to) {
    BATON_TRY(const JsonFields all, step.fields("special_tokens"));
    BATON_TRY(const JsonFields one, all.fields(name));
    BATON_TRY(const boost::json::array* ids, one.array("ids"));
    for (const auto& json : *ids) {
      BATON_TRY(const TokenId id, token_id(one, "ids", json));
      to.push_back(id);
    }
    return {};
  }

  // Of the decoder only one thing is not plain from the model: whether it drops the first space.
  status read_decoder(const JsonFields& root) {
    if (out_.bpe.byte_level || !root.has("decoder")) return {};
    BATON_TRY(const JsonFields outer, root.fields("decoder"));
    BATON_TRY(const std::string_view type, outer.string("type"));
    if (type == "Metaspace") {
      out_.strip_first_space = true;
      if (outer.has("prepend_scheme")) {
        BATON_TRY(const std::string_view scheme, outer.string("prepend_scheme"));
        out_.strip_first_space = scheme != "never";
      }
    }
    if (type != "Sequence") return {};
    BATON_TRY(const boost::json::array* steps, outer.array("decoders"));
    for (const auto& json : *steps) {
      BATON_TRY(const JsonFields step, JsonFields::root(json, out_.source + ", a step of decoder"));
      BATON_TRY(const std::string_view step_type, step.string("type"));
      if (step_type == "Strip") out_.strip_first_space = true;
    }
    return {};
  }

  // ---- the files beside it

  // The document of that name, or null where there is no such file.
  result<boost::json::value> optional_json(const char* name) const {
    std::error_code ignored;
    if (!std::filesystem::exists(directory_ / name, ignored)) return boost::json::value();
    return formats::read_json_file(directory_ / name, {size_t{16} << 20, 32});
  }

  status read_configs() {
    BATON_TRY(const boost::json::value tokenizer_config, optional_json("tokenizer_config.json"));
    const bool is_there = !tokenizer_config.is_null();
    if (is_there) {
      BATON_TRY(const JsonFields fields,
                JsonFields::root(tokenizer_config, path_of("tokenizer_config.json")));
      BATON_CHECK_OK(read_tokenizer_config(fields));
    }
    for (const char* name : {"generation_config.json", "config.json"}) {
      BATON_TRY(const boost::json::value json, optional_json(name));
      if (json.is_null()) continue;
      BATON_TRY(const JsonFields fields, JsonFields::root(json, path_of(name)));
      BATON_CHECK_OK(read_ends(fields, /*with_bos=*/!is_there));
    }
    return {};
  }

  std::string path_of(const char* name) const { return (directory_ / name).string(); }

  status read_tokenizer_config(const JsonFields& config) {
    BATON_TRY(out_.bos, named_token(config, "bos_token"));
    BATON_TRY(const std::optional<TokenId> eos, named_token(config, "eos_token"));
    if (eos) out_.eos.push_back(*eos);
    if (out_.bos && config.has("add_bos_token")) {
      // What is said here goes before the post-processor, as in transformers.
      BATON_TRY(const bool add, config.boolean("add_bos_token"));
      std::erase(out_.prefix, *out_.bos);
      if (add) out_.prefix.insert(out_.prefix.begin(), *out_.bos);
    }
    return read_chat_template(config);
  }

  // "text" or {"content": "text"}.
  result<std::optional<TokenId>> named_token(const JsonFields& config, std::string_view field) {
    if (!config.has(field)) return std::optional<TokenId>();
    std::string_view text;
    if (config.find(field)->is_object()) {
      BATON_TRY(const JsonFields fields, config.fields(field));
      BATON_TRY(text, fields.string("content"));
    } else {
      BATON_TRY(text, config.string(field));
    }
    const auto found = ids_.find(text);
    if (found == ids_.end()) {
      return config.bad(
          field, fmt::format("is '{}', which is not in the vocabulary", formats::printable(text)));
    }
    return std::optional(found->second);
  }

  // A template, or several by name, of which "default" is the one.
  status read_chat_template(const JsonFields& config) {
    if (!config.has("chat_template")) return {};
    if (!config.find("chat_template")->is_array()) {
      BATON_TRY(const std::string_view source, config.string("chat_template"));
      out_.chat_template = source;
      return {};
    }
    for (const auto& json : config.find("chat_template")->get_array()) {
      BATON_TRY(const JsonFields one,
                JsonFields::root(json, path_of("tokenizer_config.json") + ", chat_template"));
      BATON_TRY(const std::string_view name, one.string("name"));
      BATON_TRY(const std::string_view source, one.string("template"));
      if (name == "default") out_.chat_template = source;
    }
    return {};
  }

  // eos_token_id: one or several. bos_token_id counts where no tokenizer_config.json says more.
  status read_ends(const JsonFields& config, bool with_bos) {
    if (config.has("eos_token_id")) {
      const boost::json::value& json = *config.find("eos_token_id");
      const boost::json::array one = {json};
      for (const auto& element : json.is_array() ? json.get_array() : one) {
        BATON_TRY(const TokenId id, token_id(config, "eos_token_id", element));
        out_.eos.push_back(id);
      }
    }
    if (with_bos && !out_.bos && config.has("bos_token_id")) {
      BATON_TRY(out_.bos, token_id(config, "bos_token_id", *config.find("bos_token_id")));
    }
    return {};
  }

  status read_chat_template_file() {
    const auto path = directory_ / "chat_template.jinja";
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return {};
    BATON_TRY(const formats::MappedFile file, formats::MappedFile::open(path));
    out_.chat_template = file.text();
    return {};
  }

  static Normalizer to_spaces() {
    Normalizer out;
    out.add(Normalizer::Replace{std::string(kMetaspace), " "});
    return out;
  }

  const std::filesystem::path directory_;
  const Normalizer spaces_ = to_spaces();
  TokenizerDefinition out_;
  std::unordered_map<std::string, TokenId, StringHash, std::equal_to<>> ids_;
};

}  // namespace

result<Tokenizer> Tokenizer::from_huggingface(const std::filesystem::path& directory) {
  BATON_TRY(TokenizerDefinition definition, HuggingFaceLoader(directory).run());
  return create(std::move(definition));
}

}  // namespace baton::text
