#include "router/text/choice_text.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>

#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"

namespace baton::router {
namespace {

text::Tokenizer load(const std::string& json) {
  const fakes::TempDir dir;
  std::ofstream(dir / "tokenizer.json") << json;
  auto tokenizer = text::Tokenizer::load(dir.path());
  if (!tokenizer) throw std::runtime_error(tokenizer.error().message);
  return *tokenizer;
}

// "▁" stands for a space, and one is written in front of each text. Ids 0 to 255 are the bytes.
constexpr TokenId kSpaceA = 259;
std::string sentence_piece_json() {
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) vocab += fmt::format(R"("<0x{:02X}>":{},)", byte, byte);
  vocab += R"("▁":256,"a":257,"b":258,"▁a":259)";
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
      "pre_tokenizer":null,"post_processor":null,
      "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
          {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
      "decoder":{"type":"Sequence","decoders":[
          {"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},
          {"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
      "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
          "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":true,"ignore_merges":false,
          "merges":["▁ a"],"vocab":{)" +
         vocab + "}}}";
}

std::vector<uint32_t> offsets(const ChoiceText& text) {
  std::vector<uint32_t> out;
  for (const TokenScore& score : text.piece().scores) out.push_back(score.text_offset);
  return out;
}

class ChoiceTextTest : public testing::Test {
 protected:
  // True if a stop string ended it.
  static bool add(ChoiceText& text, std::string_view letters) {
    bool stopped = false;
    for (const char letter : letters) {
      proto::TokenEvent event;
      event.set_token(letter);
      stopped = text.add(event, /*silent=*/false);
      if (stopped) break;
    }
    return stopped;
  }
  text::Tokenizer toy_ = load(fakes::toy_tokenizer_json());
};

TEST_F(ChoiceTextTest, OffsetsCountWhatMayYetBecomeAStopString) {
  ChoiceText text(0, toy_, {.logprobs = true, .stop = {"bcx"}});
  EXPECT_FALSE(add(text, "abcde"));
  EXPECT_EQ(text.piece().text, "abcde");
  EXPECT_EQ(offsets(text), (std::vector<uint32_t>{0, 1, 2, 3, 4}));
}

TEST_F(ChoiceTextTest, StopStringsWaitForMinTokens) {
  ChoiceText text(0, toy_, {.stop = {"ab"}, .min_tokens = 4});
  EXPECT_FALSE(add(text, "xabx"));
  EXPECT_EQ(text.piece().text, "xabx");
  EXPECT_TRUE(add(text, "yabz"));
  EXPECT_EQ(text.piece().text, "xabxy");
  EXPECT_EQ(text.num_tokens(), 7u);
}

TEST_F(ChoiceTextTest, AStopStringThatEndsBehindMinTokensCounts) {
  ChoiceText text(0, toy_, {.stop = {"bc"}, .min_tokens = 2});
  EXPECT_TRUE(add(text, "abc"));
  EXPECT_EQ(text.piece().text, "a");
}

TEST_F(ChoiceTextTest, AnEchoBeginsAsThePromptDid) {
  const text::Tokenizer tokenizer = load(sentence_piece_json());
  const auto echoed = [&](std::string_view prompt) {
    ChoiceText text(0, tokenizer, {.logprobs = true});
    text.echo(*tokenizer.encode(prompt, {}), {});
    return std::pair(text.piece().text, offsets(text));
  };
  EXPECT_EQ(echoed("a b"), std::pair(std::string("a b"), std::vector<uint32_t>({0, 1, 2})));
  EXPECT_EQ(echoed(" a"), std::pair(std::string(" a"), std::vector<uint32_t>({0, 0})));
  // Inside a text the space is its own.
  ChoiceText answer(0, tokenizer, {});
  proto::TokenEvent event;
  event.set_token(kSpaceA);
  answer.add(event, /*silent=*/false);
  EXPECT_EQ(answer.piece().text, " a");
}

}  // namespace
}  // namespace baton::router
