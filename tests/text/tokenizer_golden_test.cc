// Ids and texts against the `tokenizers` library, by hashes: scripts/make_text_goldens.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "common/text/tokenizer.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/quick_start_model.h"
#include "tests/fakes/temp_dir.h"
#include "tests/text/random_text.h"

namespace baton::text {
namespace {

std::string hex(uint32_t value) {
  char out[9];
  std::snprintf(out, sizeof out, "%08x", value);
  return out;
}

// Each line: the hash of a text's ids, the hash of the text of random ids.
size_t check_hashes(const std::string& family, const Tokenizer& tokenizer) {
  // The library decodes a run of byte tokens as a whole or not at all, which no stream can do; on
  // the ids of a text both agree.
  const bool decode_own = family == "llama2" || family == "metaspace";
  const RandomTexts texts(family);
  std::ifstream lines(data_path(family + ".hashes"));
  EXPECT_TRUE(lines);
  std::string of_ids, of_text;
  size_t index = 0, failures = 0;
  for (; lines >> of_ids >> of_text && failures < 5; ++index) {
    const std::string text = texts.text(index);
    const auto ids = tokenizer.encode(
        text, {.add_special = index % 2 == 0, .parse_special = index / 2 % 2 == 0});
    EXPECT_TRUE(ids) << family << " " << index << ": " << (ids ? "" : ids.error().message);
    if (!ids) return index;
    EXPECT_EQ(hex(hash_of(*ids)), of_ids)
        << "make_text_goldens.py show " << family << " " << index << "\n"
        << text << "\n"
        << testing::PrintToString(*ids);
    const auto some = decode_own ? *ids : texts.ids(index, tokenizer.vocab_size());
    const std::string decoded = tokenizer.decode(some, /*skip_special=*/index % 2 == 0);
    EXPECT_EQ(hex(hash_of(decoded)), of_text)
        << "make_text_goldens.py show " << family << " " << index << "\n"
        << testing::PrintToString(some) << "\n"
        << testing::PrintToString(decoded);
    failures += (hex(hash_of(*ids)) != of_ids) + (hex(hash_of(decoded)) != of_text);
  }
  return index;
}

class TokenizerFamily : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerFamily, EqualsTheTokenizersLibrary) {
  const auto tokenizer = Tokenizer::load(data_path(GetParam()));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(check_hashes(GetParam(), *tokenizer), 1500u);
}

INSTANTIATE_TEST_SUITE_P(Golden, TokenizerFamily,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "tekken", "llama2",
                                         "metaspace", "flags", "splits"),
                         [](const auto& info) { return std::string(info.param); });

// The vocabulary of a family's tokenizer.json as a GGUF file has it.
fakes::GgufWriter gguf_of(const std::string& family, std::string_view pre) {
  const auto json = boost::json::parse(read_data(family + "/tokenizer.json"));
  std::vector<std::string> tokens, merges;
  std::vector<int32_t> types;
  const auto put = [&](const boost::json::value& id, std::string_view text, int32_t type) {
    const auto at = id.to_number<size_t>();
    if (at >= tokens.size()) tokens.resize(at + 1), types.resize(at + 1, 1);
    tokens[at] = text;
    types[at] = type;
  };
  for (const auto& [text, id] : json.at("model").at("vocab").as_object()) put(id, text, 1);
  for (const auto& token : json.at("added_tokens").as_array()) {
    put(token.at("id"), text_of(token.at("content")), token.at("special").as_bool() ? 3 : 4);
  }
  for (const auto& pair : json.at("model").at("merges").as_array()) {
    merges.push_back(text_of(pair.at(0)) + " " + text_of(pair.at(1)));
  }
  fakes::GgufWriter out;
  out.set("general.architecture", std::string_view("llama"))
      .set("tokenizer.ggml.model", std::string_view("gpt2"))
      .set("tokenizer.ggml.pre", pre)
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", merges);
  for (const char* bos : {"<|begin_of_text|>", "<s>"}) {
    const auto found = std::ranges::find(tokens, bos);
    if (found == tokens.end()) continue;
    out.set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(found - tokens.begin()));
  }
  return out;
}

TEST(TokenizerGolden, GgufEqualsTheTokenizersLibrary) {
  const std::pair<const char*, const char*> families[] = {{"gpt2", "gpt-2"},
                                                          {"smollm", "smollm"},
                                                          {"llama3", "llama-bpe"},
                                                          {"qwen2", "qwen2"},
                                                          {"tekken", "tekken"}};
  const fakes::TempDir dir;
  for (const auto& [family, pre] : families) {
    gguf_of(family, pre).write(dir / "m.gguf");
    const auto tokenizer = Tokenizer::load(dir / "m.gguf");
    ASSERT_TRUE(tokenizer) << family << ": " << tokenizer.error().message;
    EXPECT_EQ(check_hashes(family, *tokenizer), 1500u);
  }
}

TEST(TokenizerGoldenModel, SmolLm2) {
  const auto path = fakes::quick_start_model();
  if (path.empty()) GTEST_SKIP();
  ASSERT_EQ(path.filename(), "SmolLM2-135M-Instruct.Q4_1.gguf");
  const auto tokenizer = Tokenizer::load(path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(check_hashes("smollm2", *tokenizer), 1500u);
  EXPECT_EQ(tokenizer->eos().size(), 2u);
  EXPECT_EQ(tokenizer->token_bytes(tokenizer->eos()[0]), "<|im_end|>");
  EXPECT_NE(tokenizer->chat_template().find("<|im_start|>"), std::string::npos);
}

}  // namespace
}  // namespace baton::text
