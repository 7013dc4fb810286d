#include "common/text/detokenizer.h"

#include <gtest/gtest.h>

#include "common/text/utf8.h"
#include "tests/text/random_text.h"

namespace baton::text {
namespace {

Tokenizer load(const std::string& family) { return *Tokenizer::load(data_path(family)); }

TokenId byte_id(const Tokenizer& tokenizer, std::string_view byte) {
  for (size_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.token_view(static_cast<TokenId>(id)) == byte) return static_cast<TokenId>(id);
  }
  ADD_FAILURE() << "no token for a byte";
  return 0;
}

// The pushes of each byte's token, then the end, with '|' between.
std::string pushes(std::string_view bytes) {
  static const Tokenizer tokenizer = load("gpt2");
  StreamDetokenizer stream(tokenizer);
  std::string out;
  for (char c : bytes) out += stream.push(byte_id(tokenizer, std::string_view(&c, 1))) + "|";
  return out + stream.finish();
}

TEST(StreamDetokenizer, HoldsBackUntilACharacterIsWhole) {
  EXPECT_EQ(pushes("aé"), "a||é|");
  EXPECT_EQ(pushes("日"), "||日|");
  EXPECT_EQ(pushes("😀x"), "|||😀|x|");
}

TEST(StreamDetokenizer, WritesReplacementsWhenNothingCanHelp) {
  EXPECT_EQ(pushes("\xff"), "\ufffd|");
  EXPECT_EQ(pushes("\x80"), "\ufffd|");
  EXPECT_EQ(pushes("\xe6\x97"), "||\ufffd");     // cut short
  EXPECT_EQ(pushes("\xe6\x97x"), "||\ufffdx|");  // one for what began a character
  EXPECT_EQ(pushes("\xf0\x9f\xf0"), "||\ufffd|\ufffd");
  EXPECT_EQ(pushes("\xe0\x80"), "|\ufffd\ufffd|");             // overlong: no character begins so
  EXPECT_EQ(pushes("\xed\xa0\x80"), "|\ufffd\ufffd|\ufffd|");  // a surrogate
  EXPECT_EQ(pushes("\xf4\x90"), "|\ufffd\ufffd|");             // beyond Unicode
  EXPECT_EQ(pushes("\xc3\xc3\xa9"), "|\ufffd|é|");
}

TEST(StreamDetokenizer, SkipsControlTokensAndKeepsWhatItHolds) {
  const Tokenizer tokenizer = load("qwen2");
  const TokenId end = (*tokenizer.encode("<|im_end|>", {false, true}))[0];
  StreamDetokenizer skipping(tokenizer), showing(tokenizer, /*skip_special=*/false);
  EXPECT_EQ(skipping.push(byte_id(tokenizer, "\xc3")), "");
  EXPECT_EQ(skipping.push(end), "");
  EXPECT_EQ(skipping.push(byte_id(tokenizer, "\xa9")), "é");
  EXPECT_EQ(showing.push(byte_id(tokenizer, "\xc3")), "");
  EXPECT_EQ(showing.push(end), "\ufffd<|im_end|>");
}

TEST(StreamDetokenizer, IdsOutsideTheVocabularyAreNothing) {
  StreamDetokenizer stream(load("gpt2"));
  EXPECT_EQ(stream.push(-1), "");
  EXPECT_EQ(stream.push(1 << 30), "");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDetokenizer, FinishMakesItNew) {
  const Tokenizer tokenizer = load("gpt2");
  StreamDetokenizer stream(tokenizer);
  stream.push(byte_id(tokenizer, "\xe6"));
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push(byte_id(tokenizer, "a")), "a");
}

// Whatever the ids: each push is well-formed, and all of them together are the whole's text.
TEST(StreamDetokenizer, PiecesMakeTheWhole) {
  for (const char* family : {"gpt2", "qwen2", "metaspace"}) {
    const Tokenizer tokenizer = load(family);
    Random random(7);
    for (int round = 0; round < 2'000; ++round) {
      StreamDetokenizer stream(tokenizer);
      std::string bytes, joined;
      for (uint64_t n = random.below(12); n > 0; --n) {
        const auto id = static_cast<TokenId>(random.below(tokenizer.vocab_size()));
        if (!tokenizer.is_special(id)) bytes += tokenizer.token_view(id);
        const std::string text = stream.push(id);
        ASSERT_FALSE(find_invalid_utf8(text));
        joined += text;
      }
      joined += stream.finish();
      std::string whole;
      for (std::string_view rest = bytes; !rest.empty();) {
        const Utf8Step step = next_utf8(rest);
        const bool good = step.kind == Utf8Step::Kind::kCharacter;
        whole += good ? rest.substr(0, step.bytes) : kReplacement;
        rest.remove_prefix(step.bytes);
      }
      ASSERT_EQ(joined, whole);
    }
  }
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("abcE").text, "abc");
  EXPECT_EQ(matcher.push("N").text, "");
  EXPECT_EQ(matcher.push("x").text, "ENx");
  EXPECT_EQ(matcher.push("yE").text, "y");
  const auto last = matcher.push("ND more");
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(*matcher.stop(), "END");
  EXPECT_EQ(matcher.push("anything").text, "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, FinishGivesBackWhatWasHeld) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.push("hi\n\nUs").text, "hi");
  EXPECT_EQ(matcher.finish(), "\n\nUs");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, WithoutStopsTextPasses) {
  StopMatcher none({}), only_empty({""});
  EXPECT_EQ(none.push("abc").text, "abc");
  EXPECT_EQ(only_empty.push("abc").text, "abc");
}

TEST(StopMatcher, TheFirstToEndWinsTheLongestAmongEquals) {
  StopMatcher first({"abcd", "bc"});
  EXPECT_EQ(first.push("xabcd").text, "xa");
  EXPECT_EQ(*first.stop(), "bc");
  StopMatcher longest({"cd", "bcd"});
  EXPECT_EQ(longest.push("abcd").text, "a");
  EXPECT_EQ(*longest.stop(), "bcd");
}

TEST(StopMatcher, OverlappingBeginningsAreNotLost) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.push("aa").text, "");
  EXPECT_EQ(matcher.push("aaa").text, "aaa");
  const auto last = matcher.push("b");
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.stopped);
}

TEST(StopMatcher, NeverCutsACharacter) {
  StopMatcher matcher({"é!"});
  EXPECT_EQ(matcher.push("aé").text, "a");
  EXPECT_EQ(matcher.push("è").text, "éè");
}

// However the text is cut, the outcome is the plain search's.
TEST(StopMatcher, EqualsASearchOfTheWhole) {
  Random random(11);
  const auto letters = [&random](uint64_t n) {
    std::string out;
    for (; n > 0; --n) out += static_cast<char>('a' + random.below(2));
    return out;
  };
  for (int round = 0; round < 5'000; ++round) {
    const std::string text = letters(random.below(30));
    std::vector<std::string> stops;
    for (uint64_t n = random.below(4); n > 0; --n) stops.push_back(letters(1 + random.below(6)));

    size_t end = std::string::npos, begin = text.size();
    for (const auto& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) begin = at;
      end = std::min(end, at + stop.size());
    }
    StopMatcher matcher(stops);
    std::string got;
    for (size_t at = 0; at < text.size() && !matcher.stopped();) {
      const size_t n = 1 + random.below(5);
      got += matcher.push(text.substr(at, n)).text;
      at += n;
    }
    got += matcher.finish();
    ASSERT_EQ(matcher.stopped(), end != std::string::npos) << text;
    ASSERT_EQ(got, text.substr(0, begin)) << text << " " << testing::PrintToString(stops);
  }
}

TEST(StopMatcher, CopiesStandAlone) {
  auto first = std::make_unique<StopMatcher>(std::vector<std::string>{"ab"});
  first->push("xa");
  StopMatcher copy = *first;
  first->push("b");
  first.reset();
  EXPECT_EQ(copy.push("c").text, "ac");
  EXPECT_EQ(copy.push("ab").text, "");
  EXPECT_EQ(*copy.stop(), "ab");
}

}  // namespace
}  // namespace baton::text
