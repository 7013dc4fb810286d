#include "router/tenants/tenant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/tenants/tenant_slo.h"
#include "router/tenants/tenants.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

constexpr TimePoint kStart{seconds(1000)};

KeyDigest key(uint8_t first) {
  KeyDigest out{};
  out[0] = first;
  return out;
}
std::shared_ptr<Tenant> make(TenantLimits limits) {
  return std::make_shared<Tenant>(TenantConfig{.name = "acme", .limits = limits}, kStart);
}

TEST(TenantTest, WithoutLimitsNothingIsRefused) {
  const auto tenant = make({});
  std::vector<std::shared_ptr<Admission>> all;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_FALSE(tenant->refusal(kStart));
    all.push_back(tenant->admit(kStart));
    all.back()->charge(1'000'000, kStart);
  }
  EXPECT_EQ(tenant->in_flight(), 1000u);
}

TEST(TenantTest, APlaceIsFreeOnceItsRequestIsOver) {
  const auto tenant = make({.max_concurrent = 2});
  auto first = tenant->admit(kStart);
  const auto second = tenant->admit(kStart);
  const auto refused = tenant->refusal(kStart);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->quota, Quota::kConcurrent);
  first.reset();
  EXPECT_FALSE(tenant->refusal(kStart));
}

TEST(TenantTest, OneRequestIsAsManyAsItHasAnswers) {
  const auto tenant = make({.requests_per_minute = 60, .max_concurrent = 10});
  auto first = tenant->admit(kStart);
  EXPECT_FALSE(first->widen(8, kStart));
  EXPECT_EQ(tenant->in_flight(), 8u);
  auto second = tenant->admit(kStart);
  const auto refused = second->widen(3, kStart);
  ASSERT_TRUE(refused) << "eleven";
  EXPECT_EQ(refused->quota, Quota::kConcurrent);
  EXPECT_EQ(tenant->in_flight(), 9u) << "as before";
  first.reset();
  EXPECT_FALSE(second->widen(10, kStart));
  second.reset();
  EXPECT_EQ(tenant->in_flight(), 0u);
  // 8 and 10 of 60 were used.
  for (int i = 0; i < 42; ++i) {
    EXPECT_FALSE(tenant->refusal(kStart)) << i;
    tenant->admit(kStart);
  }
  EXPECT_TRUE(tenant->refusal(kStart));
}

TEST(TenantTest, RequestsAndTokensAreCountedApart) {
  const auto tenant = make({.requests_per_minute = 2, .tokens_per_minute = 600});
  tenant->admit(kStart)->charge(700, kStart);
  auto refused = tenant->refusal(kStart);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->quota, Quota::kTokens);
  EXPECT_EQ(refused->retry_after, milliseconds(10'100));  // 101 at 10 a second
  const TimePoint later = kStart + refused->retry_after;
  EXPECT_FALSE(tenant->refusal(later));
  tenant->admit(later);
  tenant->admit(later);
  refused = tenant->refusal(later);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->quota, Quota::kRequests);
}

TEST(TenantTest, ARefusalNamesItsQuotaAndWhenToComeBack) {
  const TenantConfig tenant{.name = "acme",
                            .limits = {.requests_per_minute = 60, .max_concurrent = 4}};
  const ApiError error = from_quota(tenant, {Quota::kRequests, milliseconds(1500)});
  EXPECT_EQ(error.status, HttpStatus::kTooManyRequests);
  EXPECT_EQ(error.code, "rate_limit_exceeded");
  EXPECT_EQ(error.param, "requests_per_minute");
  EXPECT_EQ(error.retry_after_seconds, 2u);
  EXPECT_EQ(error.retry_after_ms, 1500u);
  EXPECT_EQ(error.message,
            "The tenant 'acme' may make 60 requests a minute and has; the next can come in 1.5 s");
  EXPECT_THAT(from_quota(tenant, {Quota::kConcurrent, seconds(1)}).message,
              HasSubstr("have 4 requests at once"));
  EXPECT_EQ(from_quota(tenant, {Quota::kTokens, std::chrono::hours(100)}).retry_after_seconds,
            3600u);
}

TEST(TenantsTest, AreKnownByTheirKeys) {
  Tenants tenants;
  EXPECT_FALSE(tenants.any());
  EXPECT_EQ(tenants.find(key(1)), nullptr);
  tenants.replace({{.name = "a", .keys = {key(1), key(2)}}, {.name = "b", .keys = {key(3)}}},
                  kStart);
  EXPECT_EQ(tenants.find(key(2))->config().name, "a");
  EXPECT_EQ(tenants.find(key(3))->config().name, "b");
  EXPECT_EQ(tenants.find(key(4)), nullptr);
}

TEST(TenantsTest, AReplacementKeepsWhatWasUsedAndWhatRuns) {
  Tenants tenants;
  const TenantLimits one{.requests_per_minute = 1, .max_concurrent = 1};
  tenants.replace({{.name = "a", .keys = {key(1)}, .limits = one}}, kStart);
  const auto admission = tenants.find(key(1))->admit(kStart);
  tenants.replace({{.name = "a", .keys = {key(2)}, .limits = {.requests_per_minute = 1}},
                   {.name = "b", .keys = {key(3)}}},
                  kStart);
  EXPECT_EQ(tenants.find(key(1)), nullptr);
  EXPECT_EQ(tenants.find(key(2))->in_flight(), 1u);
  EXPECT_EQ(tenants.find(key(2))->refusal(kStart)->quota, Quota::kRequests);
  tenants.replace({}, kStart);  // its request goes on
  EXPECT_EQ(admission->tenant().name, "a");
  admission->charge(5, kStart);
}

TEST(TenantsTest, OneThatIsGoneIsThereWhileItsRequestsAre) {
  Tenants tenants;
  tenants.replace({{.name = "acme", .keys = {key(1)}}, {.name = "idle", .keys = {key(2)}}}, kStart);
  EXPECT_FALSE(tenants.is_there("other"));
  auto running = tenants.find(key(1))->admit(kStart);
  tenants.replace({{.name = "other", .keys = {key(3)}}}, kStart);
  EXPECT_TRUE(tenants.is_there("other"));
  EXPECT_FALSE(tenants.is_there("idle"));
  EXPECT_TRUE(tenants.is_there("acme"));
  tenants.replace({{.name = "other", .keys = {key(3)}}}, kStart);
  EXPECT_TRUE(tenants.is_there("acme"));
  running.reset();
  EXPECT_FALSE(tenants.is_there("acme"));
}

TEST(TenantsTest, SaltsOfTenantsNeverMeet) {
  const TenantConfig a{.name = "a"}, ab{.name = "a-b"};
  EXPECT_NE(a.salt("x"), ab.salt("x"));
  EXPECT_NE(a.salt(""), ab.salt(""));
  EXPECT_NE(a.salt("x"), a.salt("y"));
  EXPECT_NE(a.salt(""), "");
}

class TenantSloTest : public testing::Test {
 protected:
  api_result<RequestSlo> choose(const std::optional<std::string>& tier = {},
                                const std::optional<std::string>& header = {}) const {
    return choose_tenant_slo(tenant_, classes_, {.slo_class = header}, tier, kStart);
  }
  std::string chosen(const std::optional<std::string>& tier = {},
                     const std::optional<std::string>& header = {}) const {
    const auto slo = choose(tier, header);
    return slo ? classes_[slo->class_index].name : slo.error().message;
  }
  const SloClasses classes_ =
      *parse_slo_classes({"fast: ttft=1s", "slow: ttft=8s", "batch: best-effort"}, "fast");
  TenantConfig tenant_{.name = "acme"};
};

TEST_F(TenantSloTest, AllClassesWhereNoneAreNamed) {
  EXPECT_EQ(chosen(), "fast");
  EXPECT_EQ(chosen("slow"), "slow");
  EXPECT_EQ(chosen({}, "batch"), "batch");
}

TEST_F(TenantSloTest, ElseItsOwnAndItsFirstByDefault) {
  tenant_.classes = {2, 1};
  EXPECT_EQ(chosen(), "batch");
  EXPECT_EQ(chosen("auto"), "batch");
  EXPECT_EQ(chosen("slow"), "slow");
  EXPECT_EQ(chosen("auto", "slow"), "slow");
  EXPECT_EQ(chosen("flex"), "batch");
  for (const auto& refused : {choose("fast"), choose("default"), choose({}, "fast")}) {
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().status, HttpStatus::kForbidden);
    EXPECT_EQ(refused.error().message,
              "The tenant 'acme' may use the classes batch, slow, not 'fast'");
  }
  EXPECT_EQ(choose("fast").error().param, "service_tier");
  EXPECT_EQ(choose({}, "fast").error().param, "x-baton-slo-class");
  EXPECT_EQ(choose("gold").error().status, HttpStatus::kBadRequest);
}

TEST_F(TenantSloTest, PriorityHalvesOrDoublesTheTimeUntilItIsDue) {
  EXPECT_EQ(choose()->due, kStart + seconds(1));
  tenant_.priority = 2;
  EXPECT_EQ(choose()->due, kStart + milliseconds(250));
  EXPECT_EQ(choose()->target.ttft, seconds(1));  // what it is promised stays
  tenant_.priority = -3;
  EXPECT_EQ(choose("slow")->due, kStart + seconds(64));
}

}  // namespace
}  // namespace baton::router
