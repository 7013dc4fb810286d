#include "common/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <climits>
#include <cmath>
#include <functional>
#include <map>
#include <thread>

#include "common/text/tokenizer_definition.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"
#include "tests/text/random_text.h"

namespace baton::text {
namespace {

using fakes::kToyBosId;
using fakes::kToyEosId;
using fakes::kToyImStartId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Ids = std::vector<TokenId>;

fakes::GgufWriter toy_gguf(bool add_bos = false) {
  fakes::GgufWriter out;
  fakes::add_toy_tokenizer(&out, fakes::kToyVocabSize, add_bos);
  return out;
}

result<Tokenizer> load_gguf(const fakes::GgufWriter& writer) {
  const fakes::TempDir dir;
  writer.write(dir / "m.gguf");
  return Tokenizer::load(dir / "m.gguf");
}

boost::json::value toy_json() { return boost::json::parse(fakes::toy_tokenizer_json()); }

// A directory with tokenizer.json and, where given, other files.
result<Tokenizer> load_json(const boost::json::value& tokenizer,
                            const std::map<std::string, std::string>& files = {}) {
  const fakes::TempDir dir;
  fakes::write_file(dir / "tokenizer.json", boost::json::serialize(tokenizer));
  for (const auto& [name, text] : files) fakes::write_file(dir / name, text);
  return Tokenizer::load(dir.path());
}

TEST(Tokenizer, BothFormatsAreOneTokenizer) {
  const auto gguf = *load_gguf(toy_gguf());
  const auto json =
      *load_json(toy_json(), {{"tokenizer_config.json", fakes::toy_tokenizer_config_json()}});
  for (const Tokenizer& tokenizer : {gguf, json}) {
    EXPECT_EQ(tokenizer.vocab_size(), fakes::kToyVocabSize);
    EXPECT_EQ(tokenizer.bos(), kToyBosId);
    EXPECT_EQ(tokenizer.eos()[0], kToyEosId);
    EXPECT_EQ(tokenizer.chat_template(), fakes::toy_tokenizer().chat_template);
    EXPECT_EQ(*tokenizer.encode("ba"), Ids{256});
    EXPECT_EQ(tokenizer.token_bytes(256), "ba");
    EXPECT_EQ(tokenizer.token_bytes(kToyImStartId), "<|im_start|>");
    EXPECT_TRUE(tokenizer.is_special(kToyImStartId));
    EXPECT_FALSE(tokenizer.is_special(256));
    EXPECT_EQ(tokenizer.decode(Ids{kToyImStartId, 256, 0x0a}), "ba\n");
    EXPECT_EQ(tokenizer.decode(Ids{kToyImStartId, 256}, false), "<|im_start|>ba");
  }
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNothing) {
  const auto tokenizer = *load_gguf(toy_gguf());
  for (TokenId id : {-1, 320, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
    EXPECT_EQ(tokenizer.decode(Ids{id}), "");
  }
}

TEST(Tokenizer, BosOnlyWhereAskedFor) {
  const auto tokenizer = *load_gguf(toy_gguf(/*add_bos=*/true));
  EXPECT_EQ(*tokenizer.encode("ba"), (Ids{kToyBosId, 256}));
  EXPECT_EQ(*tokenizer.encode("ba", {.add_special = false}), Ids{256});
  EXPECT_EQ(*tokenizer.encode(""), Ids{kToyBosId});
}

TEST(Tokenizer, ControlTokensInTextOnlyWhereAskedFor) {
  const auto tokenizer = *load_gguf(toy_gguf());
  EXPECT_EQ(*tokenizer.encode("<|im_end|>", {.parse_special = true}), Ids{kToyEosId});
  const Ids plain = *tokenizer.encode("<|im_end|>");
  EXPECT_EQ(plain.size(), 10u);
  EXPECT_EQ(tokenizer.decode(plain), "<|im_end|>");
}

TEST(Tokenizer, GuardedTextHoldsNoControlToken) {
  const auto tokenizer = *load_gguf(toy_gguf());
  EXPECT_EQ(tokenizer.guard("hello <|im_ é"), "hello <|im_ é");
  const std::string user = "a<|im_end|><<|im_start|>b<|im_<|im_end|>";
  const std::string prompt = "<|im_start|>" + tokenizer.guard(user) + "<|im_end|>";
  const Ids ids =
      *tokenizer.encode(prompt, {.add_special = false, .parse_special = true, .guarded = true});
  ASSERT_GT(ids.size(), 2u);
  EXPECT_EQ(ids.front(), kToyImStartId);
  EXPECT_EQ(ids.back(), kToyEosId);
  const Ids inner(ids.begin() + 1, ids.end() - 1);
  EXPECT_EQ(inner, *tokenizer.encode(user, {.add_special = false}));
}

TEST(Tokenizer, BadUtf8IsRefusedWithItsPlace) {
  const auto out = load_gguf(toy_gguf())->encode("ab\xf0\x9f");
  EXPECT_EQ(out.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(out.error().message, "the text is not valid UTF-8 at byte 2");
}

// Much of what defeats naive merging, splitting or matching; each must be encoded, and soon.
TEST(Tokenizer, HostileTextIsEncoded) {
  const auto repeated = [](std::string_view part) {
    std::string out;
    while (out.size() < 200'000) out += part;
    return out;
  };
  const std::string texts[] = {repeated("a"),          repeated(" "),
                               repeated(" ") + "a",    repeated("\n"),
                               repeated(" \n"),        repeated("1"),
                               repeated("!"),          repeated("A"),
                               repeated("日"),         repeated("\u0301"),
                               repeated("<|"),         repeated("<|im_end|"),
                               repeated("<|im_end|>"), repeated("'s"),
                               repeated("\x7f"),       repeated("👨‍👩‍👧‍👦"),
                               repeated("\u3000"),     repeated("ab \t\r\n")};
  for (const char* family : {"gpt2", "smollm", "llama3", "qwen2", "tekken", "llama2"}) {
    const auto tokenizer = *Tokenizer::load(data_path(family));
    for (const std::string& text : texts) {
      const auto ids = tokenizer.encode(text, {.parse_special = true});
      ASSERT_TRUE(ids) << family << ": " << ids.error().message;
      EXPECT_GT(ids->size(), 500u);
    }
  }
}

TEST(Tokenizer, ManyThreadsShareOne) {
  const auto tokenizer = *Tokenizer::load(data_path("qwen2"));
  const RandomTexts texts("threads");
  std::vector<Ids> expected;
  for (uint64_t i = 0; i < 100; ++i) expected.push_back(*tokenizer.encode(texts.text(i)));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(*tokenizer.encode(texts.text(i)), expected[i]);
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(Tokenizer, FingerprintsTellTokenizersApart) {
  const auto base = load_gguf(toy_gguf())->fingerprint();
  EXPECT_EQ(load_gguf(toy_gguf())->fingerprint(), base);
  EXPECT_NE(load_gguf(toy_gguf(true))->fingerprint(), base);
  EXPECT_NE(
      load_gguf(toy_gguf().set("tokenizer.ggml.pre", std::string_view("qwen2")))->fingerprint(),
      base);
  auto merges = fakes::toy_tokenizer().merges;
  std::swap(merges[0], merges[1]);
  EXPECT_NE(load_gguf(toy_gguf().set("tokenizer.ggml.merges", merges))->fingerprint(), base);
}

// ---- Hugging Face files

TEST(HuggingFace, TextsAroundComeFromPostProcessorAndConfig) {
  auto json = toy_json();
  json.at("post_processor") = boost::json::parse(R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "E", "type_id": 0}}],
      "special_tokens": {"B": {"id": "B", "ids": [317], "tokens": ["B"]},
                         "E": {"id": "E", "ids": [319], "tokens": ["E"]}}})");
  EXPECT_EQ(*load_json(json)->encode("ba"), (Ids{317, 256, 319}));
  const auto with = [&json](const char* config) {
    return *load_json(json, {{"tokenizer_config.json", config}});
  };
  EXPECT_EQ(*with(R"({"bos_token": "<|endoftext|>", "add_bos_token": false})").encode("ba"),
            (Ids{256, 319}));
  EXPECT_EQ(
      *with(R"({"bos_token": {"content": "<|im_start|>"}, "add_bos_token": true})").encode("ba"),
      (Ids{318, 317, 256, 319}));
}

TEST(HuggingFace, EndsComeFromThreeFiles) {
  const auto tokenizer =
      load_json(toy_json(), {{"tokenizer_config.json", R"({"eos_token": "<|im_end|>"})"},
                             {"generation_config.json", R"({"eos_token_id": [317, 319]})"},
                             {"config.json", R"({"eos_token_id": 318, "bos_token_id": 1})"}});
  EXPECT_THAT(tokenizer->eos(), ElementsAre(319, 317, 318));
  EXPECT_EQ(tokenizer->bos(), std::nullopt);  // tokenizer_config.json is there and names none
  EXPECT_EQ(load_json(toy_json(), {{"config.json", R"({"bos_token_id": 317})"}})->bos(), 317);
}

TEST(HuggingFace, ChatTemplateFromConfigListOrFile) {
  const auto template_of = [](const std::map<std::string, std::string>& files) {
    return load_json(toy_json(), files)->chat_template();
  };
  EXPECT_EQ(template_of({}), "");
  EXPECT_EQ(template_of({{"tokenizer_config.json", R"({"chat_template": "one"})"}}), "one");
  const std::string list = R"({"chat_template": [{"name": "tool_use", "template": "no"},
                                                 {"name": "default", "template": "yes"}]})";
  EXPECT_EQ(template_of({{"tokenizer_config.json", list}}), "yes");
  EXPECT_EQ(template_of({{"tokenizer_config.json", list}, {"chat_template.jinja", "file"}}),
            "file");
}

struct BrokenJson {
  const char* pointer;  // what is replaced
  std::string with;     // JSON
  Errc code;
  const char* sentence;
};

std::string nfc_steps(size_t n) {
  std::string out = R"({"type": "NFC"})";
  for (size_t i = 1; i < n; ++i) out += R"(, {"type": "NFC"})";
  return out;
}

TEST(HuggingFace, BrokenFilesAreRefusedWithASentence) {
  const BrokenJson cases[] = {
      {"/model", "null", Errc::kNotFound, "'model'"},
      {"/model", "[]", Errc::kDataCorrupt, "'model'"},
      {"/model/type", R"("Unigram")", Errc::kUnsupported, "'Unigram'"},
      {"/model/type", R"("WordPiece")", Errc::kUnsupported, "'WordPiece'"},
      {"/model/dropout", "0.1", Errc::kUnsupported, "dropout"},
      {"/model/end_of_word_suffix", R"("</w>")", Errc::kUnsupported, "end_of_word_suffix"},
      {"/model/unk_token", R"("<nope>")", Errc::kDataCorrupt, "unk_token"},
      {"/model/vocab", "null", Errc::kNotFound, "vocab"},
      {"/model/vocab", R"({"a": -1})", Errc::kDataCorrupt, "vocab"},
      {"/model/vocab", R"({"a": 1.5})", Errc::kDataCorrupt, "vocab"},
      {"/model/vocab", R"({"a": "1"})", Errc::kDataCorrupt, "vocab"},
      {"/model/vocab", R"({"a": 4000000000})", Errc::kDataCorrupt, "vocab"},
      {"/model/vocab", R"({"a": 16000000})", Errc::kDataCorrupt, "too high"},
      {"/model/merges", "null", Errc::kNotFound, "merges"},
      {"/model/merges", R"(["a"])", Errc::kDataCorrupt, "entry 0"},
      {"/model/merges", R"(["a b c"])", Errc::kDataCorrupt, "entry 0"},
      {"/model/merges", R"([["a"]])", Errc::kDataCorrupt, "entry 0"},
      {"/model/merges", R"([["b", "a"], 3])", Errc::kDataCorrupt, "entry 1"},
      {"/model/merges", R"([["z", "z"]])", Errc::kDataCorrupt, "'z' and 'z'"},
      {"/pre_tokenizer", "null", Errc::kUnsupported, "ByteLevel"},
      {"/pre_tokenizer", R"({"type": "BertPreTokenizer"})", Errc::kUnsupported,
       "'BertPreTokenizer'"},
      {"/pre_tokenizer", R"({"type": "Sequence"})", Errc::kNotFound, "pretokenizers"},
      {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"},
          {"type": "Digits"}]})",
       Errc::kUnsupported, "Digits after ByteLevel"},
      {"/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"},
          {"type": "ByteLevel", "add_prefix_space": true}]})",
       Errc::kUnsupported, "space"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})",
       Errc::kUnsupported, "'('"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"})",
       Errc::kUnsupported, "'Odd'"},
      {"/pre_tokenizer", R"({"type": "Split", "behavior": "Isolated"})", Errc::kNotFound,
       "pattern"},
      {"/pre_tokenizer/use_regex", "3", Errc::kDataCorrupt, "use_regex"},
      {"/normalizer", R"({"type": "Lowercase"})", Errc::kUnsupported, "'Lowercase'"},
      {"/normalizer", R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""})",
       Errc::kUnsupported, "Regex"},
      {"/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})",
       Errc::kDataCorrupt, "String"},
      {"/normalizer", R"({"type": "Prepend", "prepend": ")" + std::string(65, 'a') + "\"}",
       Errc::kUnsupported, "prepend' is longer than 64 bytes"},
      {"/normalizer",
       R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + std::string(65, 'a') +
           "\"}",
       Errc::kUnsupported, "content' is longer than 64 bytes"},
      {"/normalizer", R"({"type": "Sequence", "normalizers": [)" + nfc_steps(17) + "]}",
       Errc::kUnsupported, "more than 16 steps"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})", Errc::kDataCorrupt,
       "not one character"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": ""})", Errc::kDataCorrupt,
       "not one character"},
      {"/post_processor", R"({"type": "RobertaProcessing"})", Errc::kUnsupported,
       "'RobertaProcessing'"},
      {"/post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken":
          {"id": "B"}}], "special_tokens": {}})",
       Errc::kNotFound, "special_tokens.B'"},
      {"/post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken":
          {"id": "B"}}], "special_tokens": {"B": {"ids": [9999]}}})",
       Errc::kDataCorrupt, "9999"},
      {"/added_tokens/0/id", "-3", Errc::kDataCorrupt, "'id'"},
      {"/added_tokens/0/id", "99999999", Errc::kDataCorrupt, "too high"},
      {"/added_tokens/0/content", "7", Errc::kDataCorrupt, "content"},
      {"/added_tokens/0", "7", Errc::kDataCorrupt, "added token"},
  };
  for (const BrokenJson& broken : cases) {
    auto json = toy_json();
    boost::json::error_code ec;
    auto* at = json.find_pointer(broken.pointer, ec);
    if (at == nullptr) {
      ADD_FAILURE() << broken.pointer;
      continue;
    }
    *at = boost::json::parse(broken.with);
    const auto out = load_json(json);
    ASSERT_FALSE(out) << broken.pointer << " " << broken.with;
    EXPECT_EQ(out.error().code, broken.code) << broken.with << ": " << out.error().message;
    EXPECT_THAT(out.error().message, HasSubstr(broken.sentence)) << broken.with;
    EXPECT_THAT(out.error().message, HasSubstr("tokenizer.json")) << broken.with;
  }
}

// 64 bytes for one, sixteen times over: 10^28 bytes.
TEST(HuggingFace, NormalizerCannotBlowUpAText) {
  std::string steps;
  for (int i = 0; i < 16; ++i) {
    steps += R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" +
             std::string(64, 'a') + "\"}" + (i < 15 ? "," : "");
  }
  auto json = toy_json();
  json.as_object()["normalizer"] =
      boost::json::parse(R"({"type": "Sequence", "normalizers": [)" + steps + "]}");
  const auto tokenizer = load_json(json);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_TRUE(tokenizer->encode("b"));
  EXPECT_EQ(tokenizer->encode("a").error().code, Errc::kResourceExhausted);
}

TEST(HuggingFace, BrokenConfigsAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"tokenizer_config.json", "{"},
      {"tokenizer_config.json", "[]"},
      {"tokenizer_config.json", R"({"eos_token": "<nope>"})"},
      {"tokenizer_config.json", R"({"eos_token": 3})"},
      {"tokenizer_config.json", R"({"bos_token": {"text": "x"}})"},
      {"tokenizer_config.json", R"({"bos_token": "<|im_end|>", "add_bos_token": 1})"},
      {"tokenizer_config.json", R"({"chat_template": 3})"},
      {"tokenizer_config.json", R"({"chat_template": [3]})"},
      {"generation_config.json", R"({"eos_token_id": "x"})"},
      {"generation_config.json", R"({"eos_token_id": [-1]})"},
      {"config.json", R"({"eos_token_id": 5000})"},
  };
  for (const auto& [name, text] : cases) {
    EXPECT_FALSE(load_json(toy_json(), {{name, text}})) << name << " " << text;
  }
}

TEST(HuggingFace, AMissingFileIsNotFound) {
  const fakes::TempDir dir;
  const auto out = Tokenizer::load(dir.path());
  EXPECT_EQ(out.error().code, Errc::kNotFound);
  EXPECT_THAT(out.error().message, HasSubstr("tokenizer.json"));
}

// ---- GGUF files

TEST(Gguf, BrokenFilesAreRefusedWithASentence) {
  using Harm = std::function<void(fakes::GgufWriter&)>;
  const auto key = [](const char* name, auto value) -> Harm {
    return [=](fakes::GgufWriter& w) { w.set(name, value); };
  };
  const auto without = [](const char* name) -> Harm {
    return [=](fakes::GgufWriter& w) { w.erase(name); };
  };
  const std::tuple<Harm, Errc, const char*> cases[] = {
      {without("tokenizer.ggml.model"), Errc::kNotFound, "tokenizer.ggml.model"},
      {without("tokenizer.ggml.tokens"), Errc::kNotFound, "tokenizer.ggml.tokens"},
      {without("tokenizer.ggml.merges"), Errc::kNotFound, "tokenizer.ggml.merges"},
      {key("tokenizer.ggml.model", std::string_view("bert")), Errc::kUnsupported, "'bert'"},
      {key("tokenizer.ggml.pre", std::string_view("mystery")), Errc::kUnsupported, "'mystery'"},
      {key("tokenizer.ggml.pre", uint32_t{3}), Errc::kDataCorrupt, "tokenizer.ggml.pre"},
      {key("tokenizer.ggml.tokens", std::vector<std::string>{}), Errc::kDataCorrupt, ""},
      {key("tokenizer.ggml.token_type", std::vector<int32_t>{1}), Errc::kDataCorrupt, "1 entries"},
      {key("tokenizer.ggml.merges", std::vector<std::string>{"ab"}), Errc::kDataCorrupt, "entry 0"},
      {key("tokenizer.ggml.merges", std::vector<std::string>{"z z"}), Errc::kDataCorrupt, "'z z'"},
      {key("tokenizer.ggml.merges", std::vector<std::string>{"a "}), Errc::kDataCorrupt, "entry 0"},
      {key("tokenizer.ggml.eos_token_id", uint32_t{320}), Errc::kDataCorrupt, "is 320"},
      {key("tokenizer.ggml.bos_token_id", std::string_view("x")), Errc::kDataCorrupt,
       "bos_token_id"},
      {key("tokenizer.ggml.add_bos_token", uint32_t{1}), Errc::kDataCorrupt, "add_bos_token"},
      {key("tokenizer.chat_template", uint32_t{1}), Errc::kDataCorrupt, "chat_template"},
      {key("tokenizer.ggml.model", std::string_view("llama")), Errc::kNotFound, "scores"},
  };
  for (const auto& [harm, code, sentence] : cases) {
    fakes::GgufWriter writer = toy_gguf();
    harm(writer);
    const auto out = load_gguf(writer);
    ASSERT_FALSE(out) << sentence;
    EXPECT_EQ(out.error().code, code) << out.error().message;
    EXPECT_THAT(out.error().message, HasSubstr(sentence));
    EXPECT_THAT(out.error().message, HasSubstr("m.gguf"));
  }
}

TEST(Gguf, KnownEndsOfTurnsCountToo) {
  auto tokens = fakes::toy_tokenizer().tokens;
  tokens[kToyImStartId] = "<|eot_id|>";
  const auto tokenizer = load_gguf(toy_gguf().set("tokenizer.ggml.tokens", tokens));
  EXPECT_THAT(tokenizer->eos(), ElementsAre(kToyEosId, kToyBosId, kToyImStartId));
}

// ---- SentencePiece's BPE in GGUF: scores in place of merges

fakes::GgufWriter sentencepiece_gguf() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  const auto add = [&](std::string text, int32_t type) {
    tokens.push_back(std::move(text));
    types.push_back(type);
  };
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 6);
  for (const char* text :
       {"▁", "a", "b", "é", "▁a", "ab", "▁ab", "aa", "ba", "▁▁", "bab", "▁aab"}) {
    add(text, 1);
  }
  std::vector<float> scores(tokens.size(), 0);
  for (size_t i = 263; i < tokens.size(); ++i) scores[i] = -static_cast<float>(i / 2);
  fakes::GgufWriter out;
  out.set("tokenizer.ggml.model", std::string_view("llama"))
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.scores", scores)
      .set("tokenizer.ggml.bos_token_id", uint32_t{1})
      .set("tokenizer.ggml.eos_token_id", uint32_t{2})
      .set("tokenizer.ggml.unknown_token_id", uint32_t{0});
  return out;
}

// SentencePiece's rule, literally: of all neighbours whose text together is a token, join those of
// the highest score, the leftmost among equals.
std::string by_scores(const Tokenizer& tokenizer, std::string_view letters) {
  std::map<std::string, TokenId> ids;
  for (TokenId id = 259; id < static_cast<TokenId>(tokenizer.vocab_size()); ++id) {
    ids.emplace(tokenizer.token_bytes(id), id);
  }
  const auto score = [](TokenId id) { return id < 263 ? 0 : -(id / 2); };
  std::vector<std::string> parts;
  for (char c : " " + std::string(letters)) parts.emplace_back(1, c);
  while (true) {
    size_t best = parts.size();
    int best_score = INT_MIN;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ids.find(parts[i] + parts[i + 1]);
      if (found == ids.end() || score(found->second) <= best_score) continue;
      best = i;
      best_score = score(found->second);
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<long>(best) + 1);
  }
  std::string out;
  for (const auto& part : parts) out += part + "|";
  return out;
}

TEST(Gguf, SentencePieceMergesByScore) {
  const auto tokenizer = *load_gguf(sentencepiece_gguf());
  Random random(5);
  for (int round = 0; round < 2'000; ++round) {
    std::string text;
    for (uint64_t n = 1 + random.below(16); n > 0; --n) text += "ab "[random.below(3)];
    std::string got;
    for (TokenId id : *tokenizer.encode(text, {.add_special = false})) {
      got += tokenizer.token_bytes(id) + "|";
    }
    ASSERT_EQ(got, by_scores(tokenizer, text)) << text;
  }
}

TEST(Gguf, SentencePieceWritesBytesAndSpaces) {
  const auto tokenizer = *load_gguf(sentencepiece_gguf());
  EXPECT_EQ(*tokenizer.encode("é日"), (Ids{1, 259, 262, 3 + 0xe6, 3 + 0x97, 3 + 0xa5}));
  EXPECT_EQ(tokenizer.decode(*tokenizer.encode("é日 ab")), "é日 ab");
  EXPECT_EQ(*tokenizer.encode("<s>", {.add_special = false, .parse_special = true}), Ids{1});
  const auto bare = *load_gguf(sentencepiece_gguf()
                                   .set_bool("tokenizer.ggml.add_space_prefix", false)
                                   .set_bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_EQ(*bare.encode("é"), Ids{262});
}

TEST(Gguf, SentencePieceScoresAndBytesAreChecked) {
  auto infinite = sentencepiece_gguf();
  infinite.set("tokenizer.ggml.scores", std::vector<float>(271, std::nanf("")));
  EXPECT_THAT(load_gguf(infinite).error().message, HasSubstr("not finite"));
  auto few = sentencepiece_gguf();
  few.set("tokenizer.ggml.scores", std::vector<float>(3, 0));
  EXPECT_THAT(load_gguf(few).error().message, HasSubstr("3 entries"));
  auto bytes = sentencepiece_gguf();
  bytes.set("tokenizer.ggml.token_type", std::vector<int32_t>(271, 6));
  EXPECT_THAT(load_gguf(bytes).error().message, HasSubstr("a byte token, 0,"));
}

}  // namespace
}  // namespace baton::text
