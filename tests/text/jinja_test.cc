#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>
#include <chrono>

#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/parser.h"
#include "tests/text/golden_files.h"

namespace baton::text::jinja {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::local_seconds kNow =
    std::chrono::local_days{std::chrono::July / 26 / 2024} + 15h + 4min + 5s;

result<std::string> render_text(std::string_view source, const boost::json::object& variables = {},
                                const Limits& limits = {}) {
  BATON_TRY(const Block block, parse(source, limits));
  Variables given;
  for (const auto& [name, json] : variables) {
    BATON_TRY(Value value, Value::from_json(json));
    given.emplace_back(name, std::move(value));
  }
  return render(block, std::move(given), kNow, limits);
}

TEST(Jinja, GivesWhatJinja2Gives) {
  size_t checked = 0;
  for (const auto& line : read_json_lines("jinja_cases.jsonl")) {
    const auto& row = line.as_object();
    const auto* variables = row.if_contains("variables");
    const auto got = render_text(text_of(row.at("template")),
                                 variables ? variables->as_object() : boost::json::object{});
    if (const auto* expected = row.if_contains("expected")) {
      EXPECT_TRUE(got) << line << "\n" << (got ? "" : got.error().message);
      EXPECT_EQ(got ? *got : "", text_of(*expected)) << row.at("template");
    } else {
      EXPECT_FALSE(got) << line << " gave " << *got;
    }
    ++checked;
  }
  EXPECT_GE(checked, 500u);
}

TEST(Jinja, ErrorsTellTheLine) {
  const auto message = [](std::string_view source) {
    const auto out = render_text(source);
    return out ? "no error" : out.error().message;
  };
  EXPECT_EQ(message("a\n\n{{ 1 + }}"), "line 3: expected an expression, got '}}'");
  EXPECT_EQ(message("\n{% if x %}"), "line 2: expected {% endif %}, got the end of the template");
  EXPECT_EQ(message("{% for m in [1] %}\n{{ m.a.b }}\n{% endfor %}"),
            "line 2: 'int object' has no attribute 'a'");
  EXPECT_EQ(message("{{ nope.x }}"), "line 1: 'nope' is undefined");
  EXPECT_EQ(message("\n{{ 1|frob }}"), "line 2: the filter 'frob' is not supported");
  EXPECT_EQ(message("{{ raise_exception('only two roles') }}"), "line 1: only two roles");
  EXPECT_EQ(message("{% include 'x' %}"), "line 1: the tag 'include' is not supported here");
}

TEST(Jinja, ErrorsHaveTheirCode) {
  EXPECT_EQ(render_text("{{ raise_exception('x') }}").error().code, Errc::kInvalidArgument);
  EXPECT_EQ(render_text("{{ 1|frob }}").error().code, Errc::kUnsupported);
  EXPECT_EQ(render_text("{% extends 'x' %}").error().code, Errc::kUnsupported);
  EXPECT_EQ(render_text("{{").error().code, Errc::kDataCorrupt);
}

// Each of these would need far more than the limits allow; each must end soon and say why.
TEST(Jinja, LimitsHold) {
  const std::string minuses(100'000, '-');
  std::string long_chain = "1", nested_ifs, long_not = "1", ternaries = "1", dots = "x";
  for (int i = 0; i < 20'000; ++i) {
    long_chain += "+1";
    nested_ifs += "{% if 1 %}";
    long_not = "not " + long_not;
    ternaries += " if 1 else 1";
    dots += ".x[0]";
  }
  const std::string sources[] = {
      "{{ " + std::string(100'000, '(') + "1" + std::string(100'000, ')') + " }}",
      "{{ " + std::string(100'000, '[') + "1" + std::string(100'000, ']') + " }}",
      "{{ +" + minuses + "1 }}",
      "{{ " + long_chain + " }}",
      "{{ " + long_not + " }}",
      "{{ " + ternaries + " }}",
      "{{ " + dots + " }}",
      nested_ifs,
      "{{ 'a' * 100000000000 }}",
      "{{ [1] * 100000000000 }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}"
      "{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x='a') %}{% for i in range(90) %}"
      "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}"
      "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
      // What holds a value without being a container.
      "{% set ns = namespace(x=0) %}{% for i in range(99999) %}"
      "{% set ns.x = [ns.x].index %}{% endfor %}",
      "{% set ns = namespace(x=0) %}{% for i in range(99999) %}{% for y in [ns.x] %}"
      "{% set ns.x = loop %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x=0) %}{% for i in range(99999) %}{% for y in [ns.x] %}"
      "{% set ns.x = loop.cycle %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x=0) %}{% for i in range(99999) %}"
      "{% set ns.x = {'a': ns.x}.get %}{% endfor %}",
      "{% for i in range(100000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 1000 }}{% endfor "
      "%}",
      "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
      "{{ (['a'] * 100000) | join('b' * 100000) }}",
      "{{ (['a' * 1000000] * 1000) | join }}",
      "{{ ('a ' * 2000000).split() | map('upper') | list | length }}",
      "{{ range(100000) | list | sort | unique | list | length }}",
      "{{ ('\n' * 1000000) | indent(1000) }}",
  };
  for (const std::string& source : sources) {
    const auto out = render_text(source);
    ASSERT_FALSE(out) << source.substr(0, 100);
    EXPECT_EQ(out.error().code, Errc::kResourceExhausted)
        << source.substr(0, 100) << ": " << out.error().message;
  }
  EXPECT_EQ(render_text(std::string(2 << 20, 'a')).error().code, Errc::kResourceExhausted);
}

TEST(Jinja, LimitsAreThoseGiven) {
  Limits limits;
  limits.max_output_bytes = 10;
  EXPECT_TRUE(render_text("{{ 'a' * 10 }}", {}, limits));
  EXPECT_FALSE(render_text("{{ 'a' * 11 }}", {}, limits));
  EXPECT_FALSE(render_text("{% for i in range(11) %}a{% endfor %}", {}, limits));
  limits = {};
  limits.max_steps = 100;
  EXPECT_TRUE(render_text("{% for i in range(10) %}a{% endfor %}", {}, limits));
  EXPECT_FALSE(render_text("{% for i in range(60) %}a{% endfor %}", {}, limits));
  limits = {};
  limits.max_depth = 10;
  EXPECT_TRUE(render_text("{% if 1 %}{% if 1 %}{{ 1 + 1 }}{% endif %}{% endif %}", {}, limits));
  EXPECT_FALSE(render_text("{{ 1+1+1+1+1+1+1+1+1+1+1+1 }}", {}, limits));
}

// Namespaces may hold each other, and themselves; the end of the rendering frees them
// (LeakSanitizer sees it if not).
TEST(Jinja, CirclesAreFreed) {
  EXPECT_TRUE(
      render_text("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}"
                  "{% for x in [a] %}{% set a.loop = loop %}{% endfor %}"
                  "{% macro m() %}{% endmacro %}{% set a.m = m %}{% set a.self = a %}{{ a }}"));
}

TEST(Jinja, MacroOutlivedByItsScope) {
  const auto out = render_text(
      "{% set ns = namespace() %}{% for i in [1] %}{% macro m() %}{{ i }}{% endmacro %}"
      "{% set ns.m = m %}{% endfor %}{{ ns.m() }}");
  EXPECT_EQ(out.error().message, "line 1: macro 'm' is called where its definition is gone");
}

}  // namespace
}  // namespace baton::text::jinja
