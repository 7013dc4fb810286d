#include <boost/json/parse.hpp>
#include <cmath>

#include "sim/cluster/report.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

Outcome answered(int scheduled_ms, int first_ms, int last_ms, uint32_t tokens) {
  return {.end = Outcome::End::kAnswered,
          .scheduled = milliseconds(scheduled_ms),
          .first_token = milliseconds(first_ms),
          .last_token = milliseconds(last_ms),
          .worst_gap = milliseconds(tokens > 1 ? 30 : 0),
          .tokens = tokens};
}

TEST(Measures, CountWhatWasPromised) {
  std::vector<Outcome> all{answered(0, 100, 300, 11),       // 20 ms a token
                           answered(1000, 1700, 1900, 11),  // its first is late
                           answered(2000, 2100, 3100, 11),  // 100 ms a token
                           answered(3000, 3100, 3100, 1)};  // of one: nothing can be late
  all.push_back({.end = Outcome::End::kRefused, .scheduled = seconds(4)});
  all.push_back({.end = Outcome::End::kFailed, .scheduled = seconds(5), .tokens = 3});
  const Measures m = measure(all, {milliseconds(500), milliseconds(50)});
  EXPECT_EQ(m.answered, 4u);
  EXPECT_EQ(m.refused, 1u);
  EXPECT_EQ(m.failed, 1u);
  EXPECT_DOUBLE_EQ(m.ttft_met, 3.0 / 6);
  EXPECT_DOUBLE_EQ(m.tpot_met, 3.0 / 6);
  EXPECT_DOUBLE_EQ(m.joint_met, 2.0 / 6);
  EXPECT_DOUBLE_EQ(m.rate, 1);
  EXPECT_DOUBLE_EQ(m.goodput, 2.0 / 6);
  EXPECT_DOUBLE_EQ(m.ttft.p50, 0.1);
  EXPECT_DOUBLE_EQ(m.ttft.p99, 0.7);
  EXPECT_DOUBLE_EQ(m.worst_gap.most, 0.03);
}

TEST(Measures, QuantilesAreOfTheNearestRank) {
  std::vector<double> values;
  for (int i = 100; i > 0; --i) values.push_back(i);
  const Quantiles q = quantiles_of(values);
  EXPECT_EQ(q.p50, 50);
  EXPECT_EQ(q.p90, 90);
  EXPECT_EQ(q.p99, 99);
  EXPECT_EQ(q.most, 100);
  EXPECT_EQ(q.mean, 50.5);
}

TEST(Measures, AnIntervalIsStudents) {
  const std::vector<double> values{1, 2, 3, 4, 5};
  const Estimate e = estimate(values);
  EXPECT_DOUBLE_EQ(e.mean, 3);
  EXPECT_NEAR(e.half_width, 2.776 * std::sqrt(2.5 / 5), 1e-9);
  EXPECT_EQ(estimate(std::vector<double>{7}).half_width, 0);
}

class Sweep : public ClusterTest {
 protected:
  static SweepOptions options(unsigned threads) {
    SweepOptions o;
    o.count = 300;
    o.seeds = {1, 3};
    o.slo = {milliseconds(100), milliseconds(10)};
    o.threads = threads;
    return o;
  }
  const ReportHead head_{.cluster = "a \"b\" <c>",
                         .trace = "t",
                         .policy = "p",
                         .arrivals = "poisson",
                         .gpus = 2,
                         .slo = {},
                         .share = 0.9};
};

TEST_F(Sweep, TheNumberOfThreadsDoesNotShow) {
  const TraceFile trace = lengths({{500, 20}, {900, 5}});
  const auto one = *sweep(mixed(2), trace, {5, 60}, options(1));
  const auto three = *sweep(mixed(2), trace, {5, 60}, options(3));
  EXPECT_EQ(to_json(head_, one, -1), to_json(head_, three, -1));
}

TEST_F(Sweep, GoodputIsTheHighestRateThatHolds) {
  const TraceFile trace = lengths({{500, 20}, {900, 5}});
  const auto found = *find_goodput(mixed(2), trace, 0.9, 5, options(1));
  ASSERT_GE(found.best, 0);
  EXPECT_GE(found.points[found.best].joint(), 0.9);
  ASSERT_LT(found.best + 1u, found.points.size());
  EXPECT_LT(found.points[found.best + 1].joint(), 0.9);
  EXPECT_LE(found.points[found.best + 1].rate, found.points[found.best].rate * 1.02);
}

TEST_F(Sweep, ReportsAreWellFormed) {
  const TraceFile trace = lengths({{500, 20}});
  const auto points = *sweep(mixed(1), trace, {5, 20, 200}, options(1));
  const auto json = boost::json::parse(to_json(head_, points, 1));
  EXPECT_EQ(json.at("points").as_array().size(), 3u);
  EXPECT_EQ(json.at("cluster").as_string(), "a \"b\" <c>");
  EXPECT_EQ(json.at_pointer("/points/0/runs").as_array().size(), 3u);
  EXPECT_EQ(json.at_pointer("/points/0/joint_met/mean").to_number<double>(), points[0].joint());
  const std::string svg = to_svg(head_, points);
  EXPECT_NE(svg.find("a \"b\" &lt;c&gt;"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  const std::string text = table(head_, points);
  EXPECT_EQ(std::ranges::count(text, '\n'), 5);
}

}  // namespace
}  // namespace baton::sim
