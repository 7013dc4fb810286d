// The page at "/" and what it asks for, over real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "router/page/page_text.h"
#include "router/service/access_control.h"
#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

std::string with_key(std::string_view key) {
  return "Authorization: Bearer " + std::string(key) + "\r\n";
}

class LivePageTest : public RouterFixture {
 protected:
  void start_with(AccessConfig access) {
    add_pair();
    start({.access = std::move(access)});
    wait_ready();
  }
  void chat(std::string_view headers = "") {
    const HttpAnswer answer = ask(
        post("/v1/chat/completions",
             R"({"model":"toy","messages":[{"role":"user","content":"sesame"}],"max_tokens":4})",
             "x-request-id: seen\r\n" + std::string(headers)));
    ASSERT_EQ(answer.status, 200) << answer.body;
  }
  boost::json::value state(std::string_view headers = "") {
    const HttpAnswer answer = ask(get("/debug/state", headers));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return parse(answer.body);
  }
  int status_of(std::string_view key) { return ask(get("/debug/state", with_key(key))).status; }
};

TEST_F(LivePageTest, ThePageIsOneDocumentThatNobodyElseMayAddToOrFrame) {
  start_with({});
  const HttpAnswer page = ask(get("/"));
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.headers.at("x-content-type-options"), "nosniff");
  EXPECT_EQ(page.headers.at("referrer-policy"), "no-referrer");
  EXPECT_EQ(page.headers.at("cache-control"), "no-cache");
  const std::string policy = page.headers.at("content-security-policy");
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, HasSubstr("frame-ancestors 'none'"));
  EXPECT_THAT(policy, HasSubstr("script-src 'sha256-"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  EXPECT_THAT(page.body, HasSubstr("<style>" + std::string(page_text::kStyle) + "</style>"));
  EXPECT_THAT(page.body, HasSubstr("<script>" + std::string(page_text::kScript) + "</script>"));
  // Nothing of others, nothing that the policy would stop.
  for (const char* none : {"http://", "https://", "src=", " style=\"", " onclick=\"", "{{"}) {
    const auto found = page.body.find(none);
    const bool names = std::string_view(none) == "http://" && found != std::string::npos &&
                       page.body.compare(found, 18, "http://www.w3.org/") == 0;
    EXPECT_TRUE(found == std::string::npos || names) << none;
  }
  EXPECT_LT(page.body.size(), size_t{100} << 10);
}

TEST_F(LivePageTest, ThePageIsAskedForAgainAndNotSentAgain) {
  start_with({});
  const std::string etag = ask(get("/")).headers.at("etag");
  RawClient client(port());
  client.send(get("/", "If-None-Match: \"other\", " + etag + "\r\n"));
  const auto same = client.read_answer(milliseconds(5000), /*has_body=*/false);
  ASSERT_TRUE(same);
  EXPECT_EQ(same->status, 304);
  EXPECT_EQ(same->headers.at("etag"), etag);
  EXPECT_EQ(same->headers.count("content-length"), 0u);
  EXPECT_EQ(same->headers.count("content-security-policy"), 1u);
  client.send(get("/", "If-None-Match: \"other\"\r\n"));  // the connection is as good as before
  const auto other = client.read_answer(milliseconds(5000));
  ASSERT_TRUE(other);
  EXPECT_EQ(other->status, 200);
}

TEST_F(LivePageTest, HeadHasTheHeadersAndOtherMethodsAreRefused) {
  start_with({});
  for (const char* path : {"/", "/debug/state"}) {
    RawClient client(port());
    client.send(raw("HEAD " + std::string(path) + " HTTP/1.1"));
    const auto head = client.read_answer(milliseconds(5000), /*has_body=*/false);
    ASSERT_TRUE(head) << path;
    EXPECT_EQ(head->status, 200) << path;
    EXPECT_NE(head->headers.at("content-length"), "0") << path;
    EXPECT_EQ(ask(post(path, "{}")).status, 405) << path;
  }
  EXPECT_EQ(ask(get("/index.html")).status, 404);
}

TEST_F(LivePageTest, TheStateHasTheWorkersAndWhatBecameOfRequestsAndNoWordOfThem) {
  start_with({});
  chat();
  boost::json::value all;
  ASSERT_TRUE(eventually([&] {
    all = state();
    return all.at("requests").as_array().size() == 1 && !all.at("pairs").as_array().empty();
  }));
  EXPECT_EQ(all.at("num_workers").to_number<int>(), 2);
  EXPECT_EQ(all.at("pools").at(0).at("role").as_string(), "prefill");
  EXPECT_EQ(all.at("pools").at(1).at("ready").to_number<int>(), 1);
  const auto request = all.at("requests").at(0);
  EXPECT_EQ(request.at("id").as_string(), "seen");
  EXPECT_EQ(request.at("result").as_string(), "met");
  EXPECT_EQ(request.at("output_tokens").to_number<int>(), 4);
  EXPECT_EQ(request.at("prefill").as_string(), "prefill-0");
  EXPECT_EQ(request.at("decode").as_string(), "decode-0");
  EXPECT_TRUE(request.at("to_first").as_object().contains("prefill"));
  EXPECT_EQ(all.at("output_tokens").to_number<int>(), 4);
  const HttpAnswer answer = ask(get("/debug/state"));
  EXPECT_THAT(answer.body, Not(HasSubstr("sesame")));
  EXPECT_EQ(answer.headers.at("cache-control"), "no-store");
  EXPECT_EQ(answer.headers.at("x-content-type-options"), "nosniff");
  EXPECT_EQ(answer.headers.count("access-control-allow-origin"), 0u);
}

TEST_F(LivePageTest, AWorkerThatIsGoneIsShownAsLost) {
  start_with({});
  on_io([&] { workers_[0]->die(); });
  EXPECT_TRUE(eventually([&] {
    const boost::json::value now = state();
    for (const auto& worker : now.at("workers").as_array()) {
      if (worker.at("state").as_string() == "lost") {
        return worker.at("name").as_string() == "prefill-0";
      }
    }
    return false;
  }));
}

TEST_F(LivePageTest, WithAKeyThePageIsThereAndTheStateIsForWhoHasOne) {
  start_with({.api_keys = {"user"}, .admin_keys = {"admin"}});
  EXPECT_EQ(ask(get("/")).status, 200);
  EXPECT_EQ(ask(get("/debug/state")).status, 401);
  EXPECT_EQ(status_of("wrong"), 401);
  chat(with_key("user"));
  EXPECT_FALSE(state(with_key("user")).at("details").as_bool());
  EXPECT_TRUE(state(with_key("admin")).at("details").as_bool());
  const auto requests = [&](std::string_view key) {
    return boost::json::serialize(state(with_key(key)).at("requests"));
  };
  ASSERT_TRUE(eventually([&] { return requests("admin").find("seen") != std::string::npos; }));
  EXPECT_THAT(requests("user"), Not(HasSubstr("seen")));
}

TEST_F(LivePageTest, ATenantIsNotShownTheOthers) {
  const TenantConfig acme{.name = "acme", .keys = {key_digest("of-acme")}};
  start_with({.admin_keys = {"admin"}, .tenants = {acme}});
  EXPECT_EQ(status_of("of-acme"), 401);
  EXPECT_EQ(status_of("admin"), 200);
  chat(with_key("of-acme"));
  EXPECT_TRUE(eventually([&] {
    const auto requests = state(with_key("admin")).at("requests");
    return !requests.as_array().empty() && requests.at(0).at("tenant").as_string() == "acme";
  }));
}

TEST_F(LivePageTest, WithTenantsAndWithoutAdminsItIsNotThere) {
  start_with({.tenants = {{.name = "acme", .keys = {key_digest("of-acme")}}}});
  EXPECT_EQ(status_of("of-acme"), 404);
  EXPECT_EQ(ask(get("/")).status, 200);
}

TEST_F(LivePageTest, WhereOnlyAdminsHaveKeysOthersSeeNoDetails) {
  start_with({.admin_keys = {"admin"}});
  EXPECT_FALSE(state().at("details").as_bool());
  EXPECT_TRUE(state(with_key("admin")).at("details").as_bool());
}

TEST_F(LivePageTest, RefusalsAreThereByReason) {
  start_with({});
  ask(get("/nowhere"));
  EXPECT_TRUE(eventually([&] {
    const auto refusals = state().at("refusals");
    return !refusals.as_array().empty() && refusals.at(0).at("reason").as_string() == "not_found";
  }));
}

}  // namespace
}  // namespace baton::router
