#include "router/placement/request_slo.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace baton::router {
namespace {

using testing::HasSubstr;

const TimePoint kReceived{seconds(1000)};

class RequestSloTest : public testing::Test {
 protected:
  RequestSlo slo(const SloHeaders& headers, const std::optional<std::string>& tier = {}) const {
    const auto chosen = choose_slo(classes_, headers, tier, kReceived);
    EXPECT_TRUE(chosen) << chosen.error().message;
    return chosen ? *chosen : RequestSlo{};
  }
  ApiError failure(const SloHeaders& headers, const std::optional<std::string>& tier = {}) const {
    const auto chosen = choose_slo(classes_, headers, tier, kReceived);
    return chosen ? ApiError{.message = "accepted"} : chosen.error();
  }
  std::string class_of(const SloHeaders& headers,
                       const std::optional<std::string>& tier = {}) const {
    return classes_[slo(headers, tier).class_index].name;
  }

  SloClasses classes_ = *parse_slo_classes({"open:", "interactive: ttft=500ms, tpot=50ms",
                                            "batch: best-effort", "cheap: best-effort ttft=10s"},
                                           "interactive");
};

TEST_F(RequestSloTest, AClassIsChosenByFieldOrHeader) {
  EXPECT_EQ(class_of({}), "interactive");
  EXPECT_EQ(class_of({.slo_class = "open"}), "open");
  EXPECT_EQ(class_of({}, "batch"), "batch");
  for (const char* name : {"auto", "default"}) {
    EXPECT_EQ(class_of({}, name), "interactive");
    EXPECT_EQ(class_of({.slo_class = name}), "interactive");
  }
  EXPECT_EQ(class_of({}, "flex"), "batch");
  EXPECT_EQ(class_of({.slo_class = "flex"}), "batch");
  EXPECT_EQ(class_of({.slo_class = "flex"}, "batch"), "batch");
  EXPECT_EQ(class_of({.slo_class = "cheap"}, "auto"), "cheap");
}

TEST_F(RequestSloTest, FlexIsTheDefaultWhereNothingIsBestEffort) {
  classes_ = *parse_slo_classes({"a:", "b: ttft=1s"}, "b");
  EXPECT_EQ(class_of({}, "flex"), "b");
  classes_ = *parse_slo_classes({"flex: ttft=1s", "b: best-effort"}, "b");
  EXPECT_EQ(class_of({}, "flex"), "flex");  // a class of that name comes first
}

TEST_F(RequestSloTest, UnknownAndContradictingNamesAreRefused) {
  const ApiError tier = failure({}, "priority");
  EXPECT_EQ(tier.status, HttpStatus::kBadRequest);
  EXPECT_EQ(tier.param, "service_tier");
  EXPECT_THAT(tier.message, HasSubstr("open, interactive, batch, cheap"));
  EXPECT_THAT(tier.message, HasSubstr("'priority'"));
  EXPECT_EQ(failure({.slo_class = ""}).param, "x-baton-slo-class");
  EXPECT_EQ(failure({.slo_class = "Batch"}, "batch").param, "x-baton-slo-class");
  EXPECT_THAT(failure({.slo_class = "open"}, "batch").message,
              HasSubstr("name different classes, batch and open"));
  EXPECT_EQ(failure({.slo_class = "open"}, "default").param, "service_tier");
}

TEST_F(RequestSloTest, HeadersSetThePromiseAndNotThePlaceInQueues) {
  const RequestSlo own = slo({});
  EXPECT_EQ(own.target, (SloTarget{milliseconds(500), milliseconds(50)}));
  EXPECT_EQ(own.received, kReceived);
  EXPECT_EQ(own.due, kReceived + milliseconds(500));
  EXPECT_FALSE(own.best_effort);

  const RequestSlo sharper = slo({.ttft_ms = "100", .tpot_ms = "12.5"});
  EXPECT_EQ(sharper.target, (SloTarget{milliseconds(100), microseconds(12500)}));
  EXPECT_EQ(sharper.due, own.due);

  const RequestSlo relaxed = slo({.ttft_alias = "3000", .tpot_alias = "900"});
  EXPECT_EQ(relaxed.target, (SloTarget{seconds(3), milliseconds(900)}));
  EXPECT_EQ(relaxed.due, kReceived + seconds(3));
}

TEST_F(RequestSloTest, ARequestWithoutATargetIsDueAllTheSame) {
  EXPECT_EQ(slo({}, "open").due, kReceived + kDueWithoutTarget);
  EXPECT_EQ(slo({}, "batch").due, kReceived + kDueBestEffort);
  EXPECT_EQ(slo({}, "cheap").due, kReceived + seconds(10));
  EXPECT_TRUE(slo({}, "batch").best_effort);
  EXPECT_EQ(slo({.ttft_ms = "100"}, "open").due, kReceived + kDueWithoutTarget);
  EXPECT_EQ(slo({.ttft_ms = "100"}, "batch").due, kReceived + kDueBestEffort);
  EXPECT_EQ(slo({.ttft_ms = "100"}, "batch").target.ttft, milliseconds(100));
  EXPECT_EQ(slo({.ttft_ms = "90000"}, "batch").due, kReceived + seconds(90));
}

TEST_F(RequestSloTest, AnAliasMayAgree) {
  EXPECT_EQ(slo({.ttft_ms = "100", .ttft_alias = "100.0"}).target.ttft, milliseconds(100));
  const ApiError error = failure({.tpot_ms = "10", .tpot_alias = "11"});
  EXPECT_EQ(error.param, "x-baton-slo-tpot-ms");
  EXPECT_THAT(error.message, HasSubstr("'x-slo-tpot-ms' must be equal"));
}

TEST_F(RequestSloTest, WhatIsNoTimeIsRefusedByTheNameOfItsHeader) {
  for (const char* text : {"",    " ",   "x",     "0",        "0.9",     "-5",
                           "+5",  "5ms", "1e3",   "0x10",     "nan",     "inf",
                           "5.",  ".5",  "1,000", "100, 100", "3600001", "99999999999999999999999",
                           "5 5", "\xff"}) {
    EXPECT_EQ(failure({.ttft_ms = text}).param, "x-baton-slo-ttft-ms") << text;
    EXPECT_EQ(failure({.tpot_ms = text}).param, "x-baton-slo-tpot-ms") << text;
    EXPECT_EQ(failure({.ttft_alias = text}).param, "x-slo-ttft-ms") << text;
    const ApiError error = failure({.tpot_alias = text});
    EXPECT_EQ(error.param, "x-slo-tpot-ms") << text;
    EXPECT_THAT(error.message, HasSubstr("between 1 and 3600000")) << text;
  }
  EXPECT_EQ(slo({.ttft_ms = "1"}).target.ttft, kMinSloTarget);
  EXPECT_EQ(slo({.ttft_ms = "3600000.0"}).target.ttft, kMaxSloTarget);
}

// Whatever comes: refused, or within bounds and never due before its class.
TEST_F(RequestSloTest, AnyBytesAreRefusedOrWithinBounds) {
  std::mt19937_64 random(1);
  constexpr std::string_view kBytes = "0123456789.eE+-, xmsnaif\x01\x80";
  for (int i = 0; i < 200000; ++i) {
    std::string text;
    for (size_t n = random() % 9; n > 0; --n) text += kBytes[random() % kBytes.size()];
    const auto chosen = choose_slo(classes_, {.ttft_ms = text}, {}, kReceived);
    if (!chosen) continue;
    ASSERT_GE(*chosen->target.ttft, kMinSloTarget) << text;
    ASSERT_LE(*chosen->target.ttft, kMaxSloTarget) << text;
    ASSERT_GE(chosen->due, kReceived + milliseconds(500)) << text;
    ASSERT_EQ(chosen->due, kReceived + std::max<Duration>(milliseconds(500), *chosen->target.ttft));
  }
  for (int i = 0; i < 20000; ++i) {  // and what is a time is taken for that
    const auto micros = static_cast<int64_t>(1000 + random() % 3599999000u);
    const std::string text = fmt::format("{}.{:03}", micros / 1000, micros % 1000);
    const Duration off = *slo({.ttft_ms = text}).target.ttft - microseconds(micros);
    ASSERT_LE(std::chrono::abs(off), microseconds(1)) << text;
  }
}

}  // namespace
}  // namespace baton::router
