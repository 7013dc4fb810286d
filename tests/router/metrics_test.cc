#include <gmock/gmock.h>

#include <string>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

class MetricsTest : public RouterFixture {};

TEST_F(MetricsTest, MetricsMayHaveAPortOfTheirOwn) {
  start({.metrics_listen = "127.0.0.1:0"});
  const uint16_t own = on_io([&] { return router_->metrics_port(); });
  ASSERT_NE(own, 0);
  const HttpAnswer metrics = request(own, get("/metrics"));
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("vllm:num_requests_running{model_name=\"toy\"} 0"));
  EXPECT_EQ(request(own, get("/health")).status, 200);
  EXPECT_EQ(request(own, get("/ready")).status, 503) << "no worker";
  for (const char* path : {"/v1/models", "/debug/state", "/"}) {
    EXPECT_EQ(request(own, get(path)).status, 404) << path;
  }
  EXPECT_EQ(ask(get("/metrics")).status, 404);
  EXPECT_EQ(ask(get("/health")).status, 200);
}

TEST_F(MetricsTest, APortForMetricsThatIsTakenIsNamed) {
  start();
  RouterConfig config;
  config.http.address = "127.0.0.1:0";
  config.models.push_back({"toy", dir_.path()});
  config.metrics_listen = "127.0.0.1:" + std::to_string(port());
  const auto failed = on_io([&] { return RouterService::start(io_, config).error().message; });
  EXPECT_THAT(failed, HasSubstr(config.metrics_listen));
}

// Lines of the exposition that are series.
size_t num_series(const std::string& text) {
  size_t found = 0;
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) found += text[at] != '#';
  return found;
}

TEST_F(MetricsTest, SeriesDoNotGrowWithWorkers) {
  const auto add = [&](int number) {
    const std::string n = std::to_string(number);
    add_worker({.role = proto::ROLE_PREFILL, .name = "prefill-" + n});
    add_worker({.role = proto::ROLE_DECODE, .name = "decode-" + n});
  };
  const auto series_with = [&](int pairs) {
    start();
    const std::string all = "{role=\"decode\",state=\"ready\"} " + std::to_string(pairs) + "\n";
    EXPECT_TRUE(
        eventually([&] { return ask(get("/metrics")).body.find(all) != std::string::npos; }));
    for (int i = 0; i < 2 * pairs; ++i) {
      ask(post("/v1/completions", R"({"model":"toy","prompt":"xyz","max_tokens":5})"));
    }
    return num_series(ask(get("/metrics")).body);
  };
  add(0);
  const size_t of_one_pair = series_with(1);
  EXPECT_GT(of_one_pair, 100u);
  for (int i = 1; i < 10; ++i) add(i);
  EXPECT_EQ(series_with(10), of_one_pair);
}

}  // namespace
}  // namespace baton::router
