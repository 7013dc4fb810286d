// Routers that do not speak with each other share workers nearly as well as one that has them all.
#include <utility>

#include "sim/cluster/sweep.h"
#include "sim/cluster/trace_file.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

constexpr Slo kSlo{milliseconds(150), milliseconds(12)};

class ClusterRouters : public ClusterTest {
 protected:
  static Measures met(ClusterSpec spec, uint32_t routers, double rate) {
    spec.routers = routers;
    SweepOptions options;
    options.count = 3000;
    options.slo = kSlo;
    options.arrivals = {Arrivals::Kind::kPoisson};
    options.run.promise = {kSlo.ttft, kSlo.tpot};
    options.run.placement.policy = router::Policy::kGoodput;
    options.run.placement.admission = true;
    options.run.placement.classes = {{.name = "default", .target = options.run.promise}};
    return sweep(spec, *read_trace("lengths:400,60"), {rate}, options)->front().runs.front();
  }
};

TEST_F(ClusterRouters, FourServeWhatOneDoes) {
  for (const double rate : {200.0, 300.0, 450.0}) {
    const Measures one = met(split(2, 2), 1, rate), four = met(split(2, 2), 4, rate);
    EXPECT_GE(four.goodput, 0.95 * one.goodput) << rate;
  }
  EXPECT_GE(met(mixed(4), 4, 200).goodput, 0.95 * met(mixed(4), 1, 200).goodput);
}

// Each is told by a mixed worker what part of its time the others' prompts take. At twice what can
// be served they still lose some.
TEST_F(ClusterRouters, OnMixedWorkersTheyLoseLittleBeyondTheEdge) {
  for (const auto& [rate, least] : {std::pair{300.0, 0.9}, std::pair{450.0, 0.8}}) {
    const Measures one = met(mixed(4), 1, rate), four = met(mixed(4), 4, rate);
    EXPECT_GE(four.goodput, least * one.goodput) << rate;
  }
}

}  // namespace
}  // namespace baton::sim
