// Templates whose single steps are dear: what a step costs is charged, so each ends soon.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/parser.h"

namespace baton::text::jinja {
namespace {

result<std::string> render_text(std::string_view source, const Limits& limits = {}) {
  BATON_TRY(const Block block, parse(source, limits));
  return render(block, {}, {}, limits);
}

std::string repeated(size_t n, auto&& one) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += one(i);
  return out;
}

// `body` far more often than there are steps.
std::string often(const std::string& setup, const std::string& body) {
  return setup + "{% for i in range(99999) %}{% for j in range(99999) %}" + body +
         "{% endfor %}{% endfor %}";
}

std::string dict_of(size_t n) {
  return "{" + repeated(n, [](size_t i) { return std::to_string(i) + ":0,"; }) + "}";
}

struct Case {
  const char* name;
  std::string source;
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

std::vector<Case> cases() {
  const std::string long_text = "{% set s = 'a' * 8000000 %}";
  const std::string spaces = "{% set s = ' ' * 8000000 %}";
  const std::string nested =
      "{% set ns = namespace(x='a' * 100000) %}{% for i in range(98) %}"
      "{% set ns.x = [ns.x] %}{% endfor %}";
  const std::string names =
      repeated(40'000, [](size_t i) { return "{%set a" + std::to_string(i) + "=1%}"; });
  const std::string parameters =
      repeated(60'000, [](size_t i) { return "a" + std::to_string(i) + ","; });
  return {
      {"DictsCompared", often("{% set a = " + dict_of(1000) + " %}", "{% set x = a == a %}")},
      {"DictsInLists", often("{% set a = " + dict_of(500) + " %}", "{% set x = a in [a] %}")},
      {"DictsUnique", often("{% set a = " + dict_of(500) + " %}", "{{ [a, a] | unique }}")},
      {"LongDictLiteral", "{{ " + dict_of(100'000) + " }}"},
      {"LongDictCall",
       "{{ dict(" + repeated(60'000, [](size_t i) { return "a" + std::to_string(i) + "=1,"; }) +
           ") }}"},
      {"ManyNames", often(names, "{{ nope }}")},
      {"ManyAttributes",
       often("{% set ns = namespace(" +
                 repeated(10'000, [](size_t i) { return "a" + std::to_string(i) + "=1,"; }) +
                 ") %}",
             "{{ ns.nope }}")},
      {"ManyParameters", often("{% macro m(" + parameters + "z) %}{% endmacro %}", "{{ m() }}")},
      {"LongTextsCompared",
       often(long_text + "{% set t = 'a' * 8000000 %}", "{% set x = s == t %}")},
      {"LongTextsOrdered", often(long_text + "{% set t = 'a' * 8000000 %}", "{% set x = s < t %}")},
      {"LongPrefix", often(long_text, "{% set x = s.startswith(s) %}")},
      {"LongPrefixRemoved", often(long_text, "{% set x = s.removeprefix(s) %}")},
      {"BackwardSearch",
       often(long_text + "{% set t = 'b' + 'a' * 4000000 %}", "{% set x = s.rfind(t) %}")},
      {"Stripped", often(spaces, "{% set x = s.strip() %}")},
      {"StrippedOfMany", often(spaces + "{% set t = 'b' * 4000000 + ' ' %}", "{{ s.strip(t) }}")},
      {"Trimmed", often(spaces, "{% set x = s | trim %}")},
      {"SplitIntoNothing", often(spaces, "{% set x = s.split() %}")},
      {"SplitIntoOne", often(long_text, "{% set x = s.split('b', 0) %}")},
      {"ReplacedByNothing", often(long_text, "{% set x = s.replace('a', '') %}")},
      {"Raised", often(long_text, "{% set x = s | upper %}")},
      {"CaseTested", often(long_text, "{% set x = s is upper %}")},
      {"NestedText", often(nested, "{% set x = ns.x | string | length %}")},
      {"NestedTextJoined", often(nested, "{% set x = ns.x ~ '' %}")},
      {"WordsAsNumbers", often("{% set s = '1' * 8000000 %}", "{% set x = s | int %}")},
      {"LongMissingKey", often(long_text, "{% set x = {}[s] %}")},
      {"LongListAsKey", often("{% set l = [0] * 100000 %}", "{% set x = {}[l] %}")},
      {"SortedOften", often("{% set l = range(10000) %}", "{% set x = l | sort %}")},
      {"ListsOrdered", often("{% set l = [0] * 100000 %}", "{% set x = l < l %}")},
      {"JsonSorted",
       often("{% set a = " + dict_of(500) + " %}", "{{ a | tojson(sort_keys=true) | length }}")},
  };
}

class JinjaCost : public testing::TestWithParam<Case> {};

TEST_P(JinjaCost, IsCharged) {
  Limits limits;
  limits.max_steps = 1'000'000;  // soon over, also in a slow build
  const auto out = render_text(GetParam().source, limits);
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, Errc::kResourceExhausted) << out.error().message;
}

INSTANTIATE_TEST_SUITE_P(All, JinjaCost, testing::ValuesIn(cases()),
                         [](const auto& one) { return std::string(one.param.name); });

// Searches that start over at each character would take minutes for these.
TEST(JinjaSearch, IsLinear) {
  EXPECT_EQ(*render_text("{% set s = 'a' * 8000000 %}{% set t = 'a' * 4000000 + 'b' %}"
                         "{{ t in s }} {{ s.find(t) }} {{ s.count(t) }} {{ s.split(t) | length }} "
                         "{{ s.replace(t, '') == s }}"),
            "False -1 0 1 True");
}

TEST(JinjaNames, AreShort) {
  EXPECT_TRUE(render_text("{{ " + std::string(256, 'a') + " }}"));
  EXPECT_EQ(render_text("\n{{ " + std::string(257, 'a') + " }}").error().message,
            "line 2: a name is too long");
}

// What templates do with common conversations stays far below the limits.
TEST(JinjaSteps, OfPlainThingsIsLow) {
  EXPECT_TRUE(
      render_text("{% set s = 'a' * 1000000 %}{% for i in range(50) %}"
                  "{% set x = s.strip('\n') %}{% set y = '</think>' in s %}{% endfor %}"));
}

}  // namespace
}  // namespace baton::text::jinja
