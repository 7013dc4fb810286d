#include "common/formats/hf_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <ostream>

#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/temp_dir.h"

namespace baton::formats {
namespace {

using ::testing::HasSubstr;

TEST(ParseJson, BuildsWhatBoostBuilds) {
  const std::string_view text =
      R"({"a": [1, -2, 2.5, true, false, null, "x\u00e9\ud83d\ude42\n"], "b": {"c": {}, "d": []},)"
      R"( "": 18446744073709551615, "long key )"
      "\xc3\xa9"
      R"(": ""})";
  const auto value = parse_json(text, "t.json");
  ASSERT_TRUE(value) << value.error().message;
  EXPECT_EQ(*value, boost::json::parse(boost::json::string_view(text.data(), text.size())));
}

TEST(ParseJson, TakesABareValue) {
  EXPECT_EQ(*parse_json(" 7 ", "t"), 7);
  EXPECT_EQ(*parse_json("\"s\"", "t"), "s");
}

struct BadJson {
  const char* what;
  std::string text;
  const char* sentence;
};
void PrintTo(const BadJson& b, std::ostream* out) { *out << b.what; }

class BadJsonTest : public ::testing::TestWithParam<BadJson> {};

TEST_P(BadJsonTest, IsRefusedWithASentence) {
  const auto value = parse_json(GetParam().text, "dir/config.json");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().code, Errc::kDataCorrupt);
  EXPECT_THAT(value.error().message, HasSubstr("dir/config.json: "));
  EXPECT_THAT(value.error().message, HasSubstr(GetParam().sentence));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadJsonTest,
    ::testing::Values(BadJson{"empty", "", "not valid JSON"},
                      BadJson{"cut", R"({"a": [1, 2)", "not valid JSON"},
                      BadJson{"extra", "{} {}", "extra data"},
                      BadJson{"duplicate", R"({"a": 1, "b": {"a": 1, "a": 2}})",
                              "the key 'a' twice in one object"},
                      BadJson{"infinite", "[1e9999]", "a number that is out of range"},
                      BadJson{"nan", "[NaN]", "not valid JSON"},
                      BadJson{"utf8", "\"\xff\"", "not valid JSON"},
                      BadJson{"surrogate", R"("\ud800")", "not valid JSON"},
                      BadJson{"comma", "[1,]", "not valid JSON"},
                      BadJson{"deep", std::string(33, '[') + std::string(33, ']'), "too deep"}),
    [](const auto& info) { return info.param.what; });

TEST(ParseJson, BoundsSizeAndDepth) {
  const auto large = parse_json("[1, 2]", "t.json", {.max_bytes = 5});
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, Errc::kResourceExhausted);
  EXPECT_THAT(large.error().message, HasSubstr("t.json: 6 bytes of JSON are more than the 5"));
  EXPECT_TRUE(parse_json(std::string(32, '[') + std::string(32, ']'), "t.json"));
}

TEST(ReadJsonFile, NamesTheFile) {
  const fakes::TempDir dir;
  fakes::write_file(dir / "a.json", "{");
  const auto value = read_json_file(dir / "a.json");
  ASSERT_FALSE(value);
  EXPECT_THAT(value.error().message, HasSubstr((dir / "a.json").string()));
  EXPECT_EQ(read_json_file(dir / "b.json").error().code, Errc::kNotFound);
}

class JsonFieldsTest : public ::testing::Test {
 protected:
  const boost::json::value value_ = boost::json::parse(
      R"({"n": 3, "neg": -1, "f": 2.5, "whole": 4.0, "s": "x", "b": true, "null": null,
          "list": [1], "inner": {"m": 1}})");
  const JsonFields fields_ = *JsonFields::root(value_, "f.json");
};

TEST_F(JsonFieldsTest, ReadsEachType) {
  EXPECT_EQ(*fields_.uint("n"), 3u);
  EXPECT_EQ(*fields_.uint("whole"), 4u);
  EXPECT_EQ(*fields_.number("n"), 3.0);
  EXPECT_EQ(*fields_.number("f"), 2.5);
  EXPECT_EQ(*fields_.string("s"), "x");
  EXPECT_EQ(*fields_.boolean("b"), true);
  EXPECT_EQ((*fields_.array("list"))->size(), 1u);
  EXPECT_EQ(*fields_.fields("inner")->uint("m"), 1u);
}

TEST_F(JsonFieldsTest, CountsNullAsAbsent) {
  EXPECT_FALSE(fields_.has("null"));
  EXPECT_EQ(fields_.uint("null").error().code, Errc::kNotFound);
  EXPECT_EQ(fields_.uint("none").error().message, "f.json: field 'none' is missing");
}

TEST_F(JsonFieldsTest, NamesFieldAndType) {
  EXPECT_EQ(fields_.uint("neg").error().message,
            "f.json: field 'neg' must be a whole number of at least 0");
  EXPECT_FALSE(fields_.uint("f"));
  EXPECT_EQ(fields_.number("s").error().message, "f.json: field 's' must be a number");
  EXPECT_EQ(fields_.string("n").error().message, "f.json: field 'n' must be a string");
  EXPECT_EQ(fields_.boolean("n").error().message, "f.json: field 'n' must be true or false");
  EXPECT_EQ(fields_.array("n").error().message, "f.json: field 'n' must be an array");
  EXPECT_EQ(fields_.fields("n").error().message, "f.json: field 'n' must be an object");
  EXPECT_EQ(fields_.fields("inner")->string("m").error().message,
            "f.json: field 'inner.m' must be a string");
  EXPECT_FALSE(JsonFields::root(boost::json::value(1), "f.json"));
}

}  // namespace
}  // namespace baton::formats
