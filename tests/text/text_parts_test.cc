// UTF-8, the byte-level table, patterns, normal forms: what tokenizers are made of.
#include <gtest/gtest.h>

#include "common/text/added_tokens.h"
#include "common/text/byte_level.h"
#include "common/text/normalizer.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/regex.h"
#include "common/text/utf8.h"

namespace baton::text {
namespace {

TEST(Utf8, FindsTheFirstBadByte) {
  EXPECT_FALSE(find_invalid_utf8(""));
  EXPECT_FALSE(find_invalid_utf8("aé日😀"));
  EXPECT_EQ(find_invalid_utf8("a\xff"), 1u);
  EXPECT_EQ(find_invalid_utf8("é\xe6\x97"), 2u);
  EXPECT_EQ(find_invalid_utf8("\xc0\x80"), 0u);
  EXPECT_EQ(find_invalid_utf8("\xed\xa0\x80"), 0u);
  EXPECT_EQ(find_invalid_utf8("\xf4\x90\x80\x80"), 0u);
}

TEST(Utf8, EveryCodePointThereAndBack) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Step step = next_utf8(text);
    ASSERT_EQ(step.kind, Utf8Step::Kind::kCharacter);
    ASSERT_EQ(step.code, code);
    ASSERT_EQ(step.bytes, text.size());
    ASSERT_EQ(utf8_length(text[0]), text.size());
  }
}

TEST(ByteLevel, TableIsThatOfGpt2) {
  EXPECT_EQ(bytes_of_byte_level("Hello"), "Hello");
  EXPECT_EQ(bytes_of_byte_level("ĠworldĊ"), " world\n");
  EXPECT_EQ(bytes_of_byte_level("Ã©"), "é");
  EXPECT_EQ(bytes_of_byte_level("Ā"), std::string(1, '\0'));
  EXPECT_EQ(bytes_of_byte_level("Ń"), "\xad");
  EXPECT_EQ(bytes_of_byte_level("a b"), std::nullopt);  // the space itself is not of the table
  EXPECT_EQ(bytes_of_byte_level("日"), std::nullopt);
  EXPECT_EQ(byte_of_token("<0xE2>"), 0xe2);
  EXPECT_EQ(byte_of_token("<0xG2>"), std::nullopt);
  EXPECT_EQ(byte_of_token("<0x1>"), std::nullopt);
}

std::optional<Regex::Span> find(const Regex& regex, std::string_view text) {
  Regex::Scratch scratch;
  return *regex.find(text, 0, scratch);
}
bool matches(std::string_view pattern, std::string_view text) {
  return find(*Regex::compile(pattern), text).has_value();
}

TEST(Regex, ReadsPatternsAsOnigurumaDoes) {
  EXPECT_TRUE(matches(R"(\A\s\z)", "\u3000"));
  EXPECT_FALSE(matches(R"(\s)", "\u180e"));  // white space to PCRE2, not to Unicode
  EXPECT_TRUE(matches(R"([^\S])", "\u0085"));
  EXPECT_FALSE(matches(R"([^\s])", "\u0085"));
  EXPECT_TRUE(matches(R"(\A\w+\z)", "a\u0301ⓐ_9"));
  EXPECT_TRUE(matches(R"([\w-]{3})", "a-_"));
  EXPECT_TRUE(matches(R"(\u4e2d)", "中"));
  EXPECT_TRUE(matches("(?i:'s)", "'ſ"));
}

TEST(Regex, RefusesWhatMeansSomethingElse) {
  for (const char* pattern :
       {R"(\h)", R"([a[b]])", "[a&&b]", R"(\u12)", "[]a]", "a\\", "(", "[z-a]", R"([\W])", "*"}) {
    const auto out = Regex::compile(pattern);
    ASSERT_FALSE(out) << pattern;
    EXPECT_EQ(out.error().code, Errc::kUnsupported);
    EXPECT_NE(out.error().message.find(pattern), std::string::npos) << out.error().message;
  }
}

TEST(Regex, LiteralsAreLiteral) {
  const Regex regex = *Regex::literal("a.b[é]*");
  EXPECT_TRUE(find(regex, "xa.b[é]*y"));
  EXPECT_FALSE(find(regex, "aab[é]"));
}

TEST(Regex, GivesUpInsteadOfHanging) {
  Regex::Scratch scratch;
  const Regex regex = *Regex::compile("(a+)+$");
  const auto out = regex.find(std::string(50, 'a') + "b", 0, scratch);
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Errc::kResourceExhausted);
  EXPECT_NE(out.error().message.find("(a+)+$"), std::string::npos);
}

TEST(Regex, DeepBacktrackingIsRefusedNotACrash) {
  Regex::Scratch scratch;
  const Regex regex = *Regex::compile("(?:(a)|b)*c");
  const auto out = regex.find(std::string(5'000'000, 'a'), 0, scratch);
  EXPECT_EQ(out.error().code, Errc::kResourceExhausted);
}

TEST(Normalizer, FormsAreThoseOfUnicode) {
  const std::string text = "e\u0301 \u212b \uac01 \ufb01 q\u0307\u0323";
  EXPECT_EQ(normalize_unicode(text, UnicodeForm::kNfc), "é Å 각 ﬁ q\u0323\u0307");
  EXPECT_EQ(normalize_unicode(text, UnicodeForm::kNfd),
            "e\u0301 A\u030a \u1100\u1161\u11a8 ﬁ q\u0323\u0307");
  EXPECT_EQ(normalize_unicode(text, UnicodeForm::kNfkc), "é Å 각 fi q\u0323\u0307");
  EXPECT_EQ(normalize_unicode("ﷺ", UnicodeForm::kNfkd), "صلى الله عليه وسلم");
  EXPECT_EQ(normalize_unicode("plain", UnicodeForm::kNfc), "plain");
}

// An exchange sort would need 4·10^10 steps here.
TEST(Normalizer, LongRunsOfMarksAreSortedFast) {
  std::string text, sorted;
  for (int i = 0; i < 200'000; ++i) text += "\u0301";
  for (int i = 0; i < 200'000; ++i) text += "\u0316", sorted += "\u0316";
  for (int i = 0; i < 200'000; ++i) sorted += "\u0301";
  EXPECT_EQ(normalize_unicode(text, UnicodeForm::kNfc), sorted);
}

TEST(Normalizer, TheLongestFormsFit) {
  Normalizer normalizer;
  normalizer.add(UnicodeForm::kNfkd);
  normalizer.add(Normalizer::Prepend{"▁"});
  normalizer.add(Normalizer::Replace{" ", "▁"});
  const auto out = normalizer.apply("ﷺﷺ");  // 3 bytes that become 33, of which 3 are spaces
  ASSERT_TRUE(out);
  EXPECT_EQ(out->size(), 3u + 2 * 39);
  EXPECT_EQ(*normalizer.apply(" "), "▁▁");
}

TEST(PreTokenizer, PrefixOnlyWhereItIsMissing) {
  PreTokenizer pre;
  pre.prepend = {PreTokenizer::Prefix::kFirst, "_"};
  pre.space = "_";
  EXPECT_EQ(pre.prepare("a b", true), "_a_b");
  EXPECT_EQ(pre.prepare(" a", true), "_a");
  EXPECT_EQ(pre.prepare("a", false), "a");
  pre.prepend.when = PreTokenizer::Prefix::kAlways;
  EXPECT_EQ(pre.prepare("a", false), "_a");
}

std::string parts_of(const AddedTokens& tokens, std::string_view text, bool special = true) {
  Regex::Scratch scratch;
  std::vector<AddedTokens::Part> parts;
  EXPECT_TRUE(tokens.split(text, false, special, scratch, parts));
  std::string out;
  for (const auto& part : parts) {
    out += part.token ? "#" + std::to_string(*part.token) : std::string(part.text);
    out += "|";
  }
  return out;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const auto tokens = *AddedTokens::create({{.id = 1, .text = "<a>"},
                                            {.id = 2, .text = "<a>b"},
                                            {.id = 3, .text = "a>bc", .special = true}},
                                           {});
  EXPECT_EQ(parts_of(tokens, "x<a>bcy"), "x|#2|cy|");
  EXPECT_EQ(parts_of(tokens, "<a><a>"), "#1|#1|");
  EXPECT_EQ(parts_of(tokens, "a>bc"), "#3|");
  EXPECT_EQ(parts_of(tokens, "a>bc", false), "a>bc|");
  EXPECT_EQ(parts_of(tokens, ""), "");
}

TEST(AddedTokens, FlagsMoveTheirEdges) {
  const auto tokens = *AddedTokens::create({{.id = 1, .text = "<l>", .lstrip = true},
                                            {.id = 2, .text = "<r>", .rstrip = true},
                                            {.id = 3, .text = "<w>", .single_word = true}},
                                           {});
  EXPECT_EQ(parts_of(tokens, "a \u3000<l> b"), "a|#1| b|");
  EXPECT_EQ(parts_of(tokens, "a <r> \n b"), "a |#2|b|");
  EXPECT_EQ(parts_of(tokens, "a<w> <w>\u0301 <w> <w>!"), "a<w> <w>\u0301 |#3| |#3|!|");
  EXPECT_EQ(parts_of(tokens, "<r> <l>"), "#2|#1|");
}

}  // namespace
}  // namespace baton::text
