// Tenants over real sockets, with fake workers behind the router.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/service/access_control.h"
#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using testing::Not;

TenantConfig tenant(const std::string& name, TenantLimits limits = {}) {
  return {.name = name, .keys = {key_digest("key-of-" + name)}, .limits = limits};
}

class TenantsTest : public RouterFixture {
 protected:
  void start_with(std::vector<TenantConfig> tenants, Duration step = milliseconds(1)) {
    add_worker({.name = "mixed-0", .step = step});
    RouterConfig config;
    config.slo_classes = *parse_slo_classes({"fast: ttft=60s", "batch: best-effort"}, "");
    config.access.tenants = std::move(tenants);
    start(std::move(config));
    wait_ready();
  }
  static std::string call(const std::string& key, std::string_view more = "") {
    return post("/v1/completions",
                R"({"model":"toy","prompt":"xyz","max_tokens":4)" + std::string(more) + "}",
                "Authorization: Bearer " + key + "\r\n");
  }
  HttpAnswer complete(const std::string& name, std::string_view more = "") {
    return ask(call("key-of-" + name, more));
  }
  std::string metrics() { return ask(get("/metrics")).body; }
};

TEST_F(TenantsTest, OnlyTheirKeysOpenAndEachHasItsOwnQuota) {
  start_with({tenant("acme", {.requests_per_minute = 2}), tenant("other")});
  EXPECT_EQ(ask(call("wrong")).status, 401);
  EXPECT_EQ(ask(get("/v1/models")).status, 401);
  EXPECT_EQ(complete("acme").status, 200);
  EXPECT_EQ(complete("acme").status, 200);
  const HttpAnswer refused = complete("acme");
  ASSERT_EQ(refused.status, 429) << refused.body;
  const auto error = parse(refused.body).at("error");
  EXPECT_EQ(error.at("code").as_string(), "rate_limit_exceeded");
  EXPECT_EQ(error.at("param").as_string(), "requests_per_minute");
  EXPECT_THAT(refused.body, HasSubstr("acme"));
  const int after = std::stoi(refused.headers.at("retry-after"));
  EXPECT_GE(after, 25);
  EXPECT_LE(after, 30);
  EXPECT_EQ(complete("other").status, 200);
  const std::string text = metrics();
  EXPECT_THAT(text, HasSubstr("baton_router_refused_total{reason=\"quota\"} 1"));
  EXPECT_THAT(text, HasSubstr("baton_tenant_refused_total{quota=\"requests_per_minute\","
                              "tenant=\"acme\"} 1"));
  EXPECT_THAT(text, HasSubstr("baton_tenant_requests_total{tenant=\"acme\"} 2"));
  EXPECT_THAT(text, HasSubstr("baton_tenant_tokens_total{kind=\"output\",tenant=\"acme\"} 8"));
  EXPECT_THAT(text, HasSubstr("baton_tenant_tokens_total{kind=\"prompt\",tenant=\"other\"} 3"));
}

TEST_F(TenantsTest, TokensOfPromptsAndOutputsCount) {
  start_with({tenant("acme", {.tokens_per_minute = 10})});
  EXPECT_EQ(complete("acme").status, 200);  // 7
  EXPECT_EQ(complete("acme").status, 200);  // 14: overdrawn
  const HttpAnswer refused = complete("acme");
  ASSERT_EQ(refused.status, 429) << refused.body;
  EXPECT_EQ(parse(refused.body).at("error").at("param").as_string(), "tokens_per_minute");
}

TEST_F(TenantsTest, AtOnceAsManyAsItMayHaveAndAClientThatLeavesGivesItsPlaceBack) {
  start_with({tenant("acme", {.max_concurrent = 1})}, milliseconds(20));
  EXPECT_EQ(complete("acme", R"(,"n":-1)").status, 400);
  EXPECT_EQ(complete("acme").status, 200);  // what was refused holds no place

  RawClient client(port());
  client.send(post("/v1/completions",
                   R"({"model":"toy","prompt":"x","max_tokens":4000,"stream":true})",
                   "Authorization: Bearer key-of-acme\r\n"));
  ASSERT_TRUE(client.read_head(std::chrono::seconds(5)));
  const HttpAnswer refused = complete("acme");
  ASSERT_EQ(refused.status, 429);
  EXPECT_EQ(parse(refused.body).at("error").at("param").as_string(), "max_concurrent");
  client.close();
  EXPECT_TRUE(eventually([&] { return complete("acme").status == 200; }));
}

TEST_F(TenantsTest, ClassesAreThoseItMayUse) {
  TenantConfig config = tenant("acme");
  config.classes = {1};
  start_with({std::move(config)});
  EXPECT_EQ(complete("acme").status, 200);
  const HttpAnswer refused = complete("acme", R"(,"service_tier":"fast")");
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(parse(refused.body).at("error").at("code").as_string(), "class_not_allowed");
  EXPECT_THAT(metrics(), HasSubstr("baton_slo_requests_total{class=\"batch\",result=\"met\"} 1"));
}

TEST_F(TenantsTest, PrefixesAreSaltedByTenantAndByTheRequest) {
  start_with({tenant("acme"), tenant("other")});
  complete("acme");
  complete("other");
  complete("acme", R"(,"cache_salt":"mine")");
  const auto specs = on_io([&] { return workers_[0]->specs(); });
  ASSERT_EQ(specs.size(), 3u);
  EXPECT_EQ(specs[0].salt(), "tenant/acme/");
  EXPECT_EQ(specs[1].salt(), "tenant/other/");
  EXPECT_EQ(specs[2].salt(), "tenant/acme/mine");
}

TEST_F(TenantsTest, OthersComeWithoutARestartAndWhatRunsGoesOn) {
  start_with({tenant("acme", {.requests_per_minute = 1})}, milliseconds(5));
  RawClient running(port());
  running.send(post("/v1/completions",
                    R"({"model":"toy","prompt":"x","max_tokens":50,"stream":true})",
                    "Authorization: Bearer key-of-acme\r\n"));
  ASSERT_TRUE(running.read_head(std::chrono::seconds(5)));
  const auto set = [&](std::vector<TenantConfig> tenants) {
    on_io([&] {
      router_->set_access({.tenants = std::move(tenants)});
      return 0;
    });
  };
  set({tenant("fresh"), tenant("acme", {.requests_per_minute = 1})});
  EXPECT_EQ(complete("fresh").status, 200);
  EXPECT_EQ(complete("acme").status, 429);  // what it used stays used
  set({tenant("fresh")});
  EXPECT_EQ(complete("acme").status, 401);
  std::string last;
  while (const auto event = running.read_event(std::chrono::seconds(5))) {
    if (*event == "[DONE]") break;
    last = *event;
  }
  EXPECT_THAT(last, HasSubstr(R"("finish_reason":"length")"));
}

TEST_F(TenantsTest, SeriesOfOneThatIsGoneEndWithItsLastRequest) {
  const std::string of_acme = "tenant=\"acme\"", of_other = "tenant=\"other\"";
  start_with({tenant("acme", {.requests_per_minute = 2}), tenant("other")}, milliseconds(5));
  EXPECT_EQ(complete("acme").status, 200);
  EXPECT_EQ(complete("other").status, 200);
  RawClient running(port());
  running.send(post("/v1/completions",
                    R"({"model":"toy","prompt":"x","max_tokens":4000,"stream":true})",
                    "Authorization: Bearer key-of-acme\r\n"));
  ASSERT_TRUE(running.read_head(std::chrono::seconds(5)));
  EXPECT_EQ(complete("acme").status, 429);
  on_io([&] {
    router_->set_access({.tenants = {tenant("other")}});
    return 0;
  });
  for (int i = 0; i < 2; ++i) EXPECT_THAT(metrics(), HasSubstr(of_acme)) << "it runs";
  running.close();
  const std::string both = "baton_tenant_requests_total{" + of_acme + "} 2";
  EXPECT_TRUE(eventually([&] { return metrics().find(both) != std::string::npos; }))
      << "what its last request used is told";
  EXPECT_TRUE(eventually([&] { return metrics().find(of_acme) == std::string::npos; }));
  const std::string text = metrics();
  EXPECT_THAT(text, Not(HasSubstr(of_acme)));
  EXPECT_THAT(text, HasSubstr("baton_tenant_requests_total{" + of_other + "} 1"));
  on_io([&] {
    router_->set_access({.tenants = {tenant("acme"), tenant("other")}});
    return 0;
  });
  EXPECT_EQ(complete("acme").status, 200);
  EXPECT_THAT(metrics(), HasSubstr("baton_tenant_requests_total{" + of_acme + "} 1"));
}

}  // namespace
}  // namespace baton::router
