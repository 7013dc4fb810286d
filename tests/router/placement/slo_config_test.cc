#include "router/placement/slo_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::HasSubstr;

SloClasses classes(const std::vector<std::string>& given, std::string_view by_default = "") {
  auto parsed = parse_slo_classes(given, by_default);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? *parsed : SloClasses{};
}

std::string failure(const std::vector<std::string>& given, std::string_view by_default = "") {
  const auto parsed = parse_slo_classes(given, by_default);
  return parsed ? "accepted" : parsed.error().message;
}

TEST(SloConfig, WithoutAnyThereIsOneClassWithoutTargets) {
  const SloClasses got = classes({});
  ASSERT_EQ(got.all.size(), 1u);
  EXPECT_EQ(got[0].name, "default");
  EXPECT_EQ(got[0].target, SloTarget{});
  EXPECT_FALSE(got[0].best_effort);
  EXPECT_EQ(classes({}, "default").by_default, 0u);
}

TEST(SloConfig, ClassesHaveTargetsOrAreBestEffort) {
  const SloClasses got = classes({"interactive: ttft=500ms, tpot=50ms", "batch: best-effort",
                                  "slow:ttft=1.5s", "plain:", "both: best-effort tpot=0.25s"});
  ASSERT_EQ(got.all.size(), 5u);
  EXPECT_EQ(got[0].target, (SloTarget{milliseconds(500), milliseconds(50)}));
  EXPECT_TRUE(got[1].best_effort);
  EXPECT_EQ(got[2].target, (SloTarget{milliseconds(1500), std::nullopt}));
  EXPECT_EQ(got[3].target, SloTarget{});
  EXPECT_TRUE(got[4].best_effort);
  EXPECT_EQ(got[4].target.tpot, milliseconds(250));
  EXPECT_EQ(got.names(), "interactive, batch, slow, plain, both");
  EXPECT_EQ(got.find("slow"), 2u);
  EXPECT_FALSE(got.find("slo"));
}

// A list in a flag or variable comes split at blanks and commas; in a file it comes whole.
TEST(SloConfig, WordsAreAsGoodAsWhole) {
  const SloClasses whole = classes({"a: ttft=500ms, tpot=50ms", "b: best-effort"});
  const SloClasses words = classes({"a:", "ttft=500ms", "tpot=50ms", "b:", "best-effort"});
  const SloClasses one = classes({"a: ttft=500ms tpot=50ms b: best-effort"});
  for (const SloClasses& other : {words, one}) {
    ASSERT_EQ(other.all.size(), whole.all.size());
    for (uint32_t i = 0; i < whole.all.size(); ++i) {
      EXPECT_EQ(other[i].name, whole[i].name);
      EXPECT_EQ(other[i].target, whole[i].target);
      EXPECT_EQ(other[i].best_effort, whole[i].best_effort);
    }
  }
}

TEST(SloConfig, TheDefaultIsTheNamedOneOrTheOneOfThatNameOrTheFirst) {
  EXPECT_EQ(classes({"a:", "b:"}).by_default, 0u);
  EXPECT_EQ(classes({"a:", "default:"}).by_default, 1u);
  EXPECT_EQ(classes({"a:", "b:"}, "b").by_default, 1u);
  EXPECT_EQ(failure({"a:", "b:"}, "c"), "--default-slo-class: there is no class 'c', only a, b");
  EXPECT_EQ(failure({}, "c"), "--default-slo-class: there is no class 'c', only default");
  EXPECT_THAT(failure({"a:", "default:"}, "a"), HasSubstr("must be the default one"));
}

TEST(SloConfig, EachErrorNamesTheClassAndTheKey) {
  const std::pair<std::string, std::string> cases[] = {
      {"ttft=1s", "'ttft=1s' is of no class"},
      {"A: ttft=1s", "the name 'A'"},
      {": ttft=1s", "the name ''"},
      {"-a: ttft=1s", "the name '-a'"},
      {std::string(33, 'a') + ":", "the name 'aaa"},
      {"a.b: ttft=1s", "the name 'a.b'"},
      {"auto: ttft=1s", "'auto'"},
      {"a: b: a:", "--slo-class a: the class is there twice"},
      {"a: ttft=1s ttft=2s", "--slo-class a: ttft is there twice"},
      {"a: tpot=1s tpot=1s", "--slo-class a: tpot is there twice"},
      {"a: best-effort best-effort", "--slo-class a: best-effort is there twice"},
      {"a: ttfl=1s", "--slo-class a: 'ttfl=1s' is none of"},
      {"a: ttft", "--slo-class a: 'ttft' is none of"},
      {"a: besteffort", "--slo-class a: 'besteffort' is none of"},
      {"a: ttft=", "--slo-class a: ttft must be a time"},
      {"a: ttft=5", "--slo-class a: ttft must be a time such as 500ms or 0.5s, not '5'"},
      {"a: ttft=s", "--slo-class a: ttft must be a time"},
      {"a: ttft=-1s", "--slo-class a: ttft must be a time"},
      {"a: ttft=1e3ms", "--slo-class a: ttft must be a time"},
      {"a: ttft=infs", "--slo-class a: ttft must be a time"},
      {"a: ttft=1.s", "--slo-class a: ttft must be a time"},
      {"a: ttft=1us", "--slo-class a: ttft must be a time"},
      {"a: ttft=0ms", "--slo-class a: ttft must be in [1ms, 3600s], not 0ms"},
      {"a: tpot=0.5ms", "--slo-class a: tpot must be in"},
      {"a: tpot=3601s", "--slo-class a: tpot must be in"},
      {"a: b: c: d: e: f: g: h: i:", "--slo-class i: at most 8"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(failure({text}), HasSubstr(message)) << text;
  }
}

TEST(SloConfig, BoundsAreWithin) {
  const SloClasses got = classes({"a: ttft=1ms tpot=3600s", "b: ttft=3600000ms"});
  EXPECT_EQ(got[0].target, (SloTarget{kMinSloTarget, kMaxSloTarget}));
  EXPECT_EQ(got[1].target.ttft, kMaxSloTarget);
}

}  // namespace
}  // namespace baton::router
