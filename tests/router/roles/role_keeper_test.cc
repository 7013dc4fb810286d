#include "router/roles/role_keeper.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "common/net/protocol.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class LeaderTest : public testing::Test {
 protected:
  void worker(std::vector<uint64_t> routers) {
    Worker& w = workers_[WorkerId(workers_.size() + 1)];
    for (const uint64_t router : routers) w.load.add_routers(router);
  }
  std::vector<const Worker*> all() const {
    std::vector<const Worker*> out;
    for (const auto& [id, w] : workers_) out.push_back(&w);
    return out;
  }
  bool leads(uint64_t router) const { return router::leads(RouterId(router), all()); }
  std::map<WorkerId, Worker> workers_;
};

TEST_F(LeaderTest, IsTheSmallestThatMostReport) {
  worker({3, 7});
  worker({3, 5, 7});
  worker({5, 7});
  EXPECT_TRUE(leads(3));
  EXPECT_FALSE(leads(5));
  EXPECT_FALSE(leads(7));
  EXPECT_EQ(live_routers(all()), 3u);
}

TEST_F(LeaderTest, WhoIsConnectedToFewDoesNotLead) {
  worker({2, 7});
  worker({7});
  worker({7, 9});
  EXPECT_TRUE(leads(7));
  EXPECT_FALSE(leads(2));
  EXPECT_FALSE(leads(9));
  EXPECT_EQ(live_routers(all()), 1u);
}

TEST_F(LeaderTest, WorkersThatSayNothingAreNotAsked) {
  worker({});
  worker({});
  EXPECT_FALSE(leads(7));
  worker({7});
  EXPECT_TRUE(leads(7));
}

TEST_F(LeaderTest, AtMostOneLeadsByOneView) {
  worker({1, 2, 3});
  worker({2, 3});
  worker({3, 1});
  worker({1});
  int leaders = 0;
  for (uint64_t router = 0; router < 6; ++router) leaders += leads(router);
  EXPECT_EQ(leaders, 1);
}

// What the dispatcher does with all that.
class RolesTest : public DispatcherTest {
 protected:
  static constexpr RouterId kSelf{5};
  void SetUp() override { dispatcher_.keep_roles(kSelf, {}); }
  void join_auto(WorkerId id, proto::Role role) {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_protocol_max(net::kProtocolRoles);
    hello.set_auto_role(true);
    ASSERT_TRUE(
        dispatcher_.worker_joined(hello, "host:" + std::to_string(id.value), now_, actions_));
    load(id, role);
  }
  void load(WorkerId id, proto::Role role, std::vector<uint64_t> routers = {kSelf.value}) {
    proto::Frame frame;
    proto::Load& l = *frame.mutable_load();
    l.set_role(role);
    l.set_free_blocks(100);
    l.set_total_blocks(100);
    for (const uint64_t router : routers) l.add_routers(router);
    say(id, frame);
  }
  // "to ROLE" for each order, in time.
  std::vector<std::string> orders(Duration how_long) {
    std::vector<std::string> out;
    for (const TimePoint end = now_ + how_long; now_ < end; now_ += milliseconds(20)) {
      actions_.clear();
      dispatcher_.tick(now_, actions_);
      for (const Send& send : actions_.sends) {
        if (!send.frame.has_set_role()) continue;
        const proto::Role role = send.frame.set_role().role();
        out.push_back(std::to_string(send.to.value) + " " + proto::Role_Name(role));
        if (obey_) load(send.to, role);
      }
    }
    return out;
  }
  std::vector<WorkerId> dialled_by(WorkerId id) {
    std::vector<WorkerId> out;
    for (const Send& send : actions_.sends) {
      if (send.to != id || !send.frame.has_peers()) continue;
      out.clear();
      for (const auto& peer : send.frame.peers().prefill()) out.emplace_back(peer.worker());
    }
    return out;
  }
  bool obey_ = true;
};

TEST_F(RolesTest, OnlyAutoWorkersAreMovedAndByTheLeader) {
  join(kMixed, proto::ROLE_MIXED);
  join(kDecode, proto::ROLE_DECODE);
  EXPECT_THAT(orders(seconds(30)), IsEmpty());
  join_auto(kPrefill, proto::ROLE_MIXED);
  load(kPrefill, proto::ROLE_MIXED, {2, kSelf.value});  // another leads
  EXPECT_THAT(orders(seconds(30)), IsEmpty());
  EXPECT_FALSE(dispatcher_.roles()->models().at("m").leads);
  load(kPrefill, proto::ROLE_MIXED);  // it is gone
  EXPECT_THAT(orders(seconds(30)), ElementsAre("11 ROLE_PREFILL"));
  EXPECT_TRUE(dispatcher_.roles()->models().at("m").leads);
  EXPECT_EQ(dispatcher_.roles()->flips().at({proto::ROLE_MIXED, proto::ROLE_PREFILL}), 1u);
}

TEST_F(RolesTest, AnOrderThatIsNotObeyedIsGivenAgainAndNotCounted) {
  obey_ = false;
  join_auto(kDecode, proto::ROLE_MIXED);
  join_auto(kDecode2, proto::ROLE_MIXED);
  const auto given = orders(seconds(10));
  EXPECT_GE(given.size(), 2u);
  for (const std::string& order : given) EXPECT_EQ(order, "21 ROLE_DECODE");
  EXPECT_THAT(dispatcher_.roles()->flips(), IsEmpty());
}

// N-1: a worker of protocol 3 does not know SetRole and does not say that it is auto.
TEST_F(RolesTest, AWorkerOfTheOlderProtocolIsNeverTold) {
  for (const WorkerId id : {kPrefill, kPrefill2}) {
    proto::WorkerHello hello = make_hello(id, proto::ROLE_PREFILL);
    hello.set_protocol_max(net::kProtocolPark);
    ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
    load(id, proto::ROLE_PREFILL, {});
  }
  EXPECT_THAT(orders(seconds(60)), IsEmpty());
}

TEST_F(RolesTest, OfTwoAutoWorkersTheSmallerDials) {
  join_auto(kPrefill, proto::ROLE_MIXED);
  join_auto(kDecode, proto::ROLE_MIXED);
  join(kPrefill2, proto::ROLE_PREFILL);
  join(kDecode2, proto::ROLE_DECODE);
  EXPECT_THAT(dialled_by(kPrefill), ElementsAre(kPrefill2, kDecode));
  EXPECT_THAT(dialled_by(kDecode), ElementsAre(kPrefill2));
  EXPECT_THAT(dialled_by(kPrefill2), IsEmpty());
  EXPECT_THAT(dialled_by(kDecode2), ElementsAre(kPrefill, kPrefill2, kDecode));
}

// A worker that became a prefill worker has no streams placed on it any more; those it has go on.
TEST_F(RolesTest, StreamsGoOnWhereTheyAre) {
  join_auto(kDecode, proto::ROLE_MIXED);
  const RequestId id = submit(8);
  take_spec();
  token(kDecode, 0, 4);
  load(kDecode, proto::ROLE_PREFILL);
  actions_.clear();
  dispatcher_.tick(now_, actions_);
  token(kDecode, 1, 5);
  const bool heard = std::ranges::any_of(actions_.outputs, [&](const Output& o) {
    const auto* out = std::get_if<TokenOut>(&o);
    return out != nullptr && out->request == id && out->event.index() == 1;
  });
  EXPECT_TRUE(heard);
  for (const Send& send : actions_.sends) EXPECT_FALSE(send.frame.has_cancel());
}

// Told to stop, its streams move: also those of a role that it has no more.
TEST_F(RolesTest, StreamsOfAFormerRoleMoveFromAWorkerThatDrains) {
  join_auto(kDecode, proto::ROLE_MIXED);
  submit(8);
  take_spec();
  token(kDecode, 0, 4);
  load(kDecode, proto::ROLE_PREFILL);
  join(kMixed, proto::ROLE_MIXED);
  actions_.clear();
  dispatcher_.tick(now_, actions_);
  EXPECT_THAT(sent(), IsEmpty());
  proto::Frame frame;
  frame.mutable_load()->set_role(proto::ROLE_PREFILL);
  frame.mutable_load()->set_draining(true);
  say(kDecode, frame);
  dispatcher_.tick(now_, actions_);
  EXPECT_THAT(sent(), ElementsAre("cancel@21", "submit@31"));
}

TEST(DemandWindow, ForgetsWhatIsOld) {
  DemandWindow window(seconds(10));
  TimePoint now{seconds(100)};
  for (int i = 0; i < 100; ++i, now += milliseconds(100)) {
    const bool targets = i % 2 == 0;
    window.arrived(
        targets ? 0.02 : 0.08, 300,
        targets ? SloTarget{.ttft = milliseconds(400), .tpot = milliseconds(40)} : SloTarget{},
        now);
    window.delivered(3, now);
    if (i % 4 == 0) window.refused(now);
  }
  const auto rates = window.rates(now);
  EXPECT_NEAR(rates.requests, 10, 1e-9);
  EXPECT_NEAR(rates.prompt_seconds, 0.5, 1e-9);
  EXPECT_NEAR(rates.tokens, 30, 1e-9);
  EXPECT_NEAR(rates.admitted, 0.75, 1e-9);
  EXPECT_NEAR(rates.prompt_tokens, 300, 1e-9);
  EXPECT_NEAR(rates.ttft, 0.4, 1e-9);
  EXPECT_NEAR(rates.tpot, 0.04, 1e-9);
  EXPECT_NEAR(rates.prompt_spread, (0.02 * 0.02 + 0.08 * 0.08) / (0.02 + 0.08), 1e-9);
  EXPECT_NEAR(window.rates(now + seconds(3)).tokens, 12, 1e-9);
  EXPECT_NEAR(window.rates(now + seconds(5)).prompt_seconds, 0.25, 1e-9);
  EXPECT_EQ(window.rates(now + seconds(12)).prompt_seconds, 0);
  EXPECT_EQ(window.rates(now + seconds(10'000)).prompt_seconds, 0);
}

// A worker whose step takes 10 ms + 1 ms a sequence.
Worker decoding(uint32_t sequences) {
  Worker w;
  w.view.costs = {.fixed = 10e-3, .row = 1e-3, .row_beyond = 0, .ridge_rows = 1e6};
  w.view.max_sequences = 256;
  w.view.block_tokens = 16;
  w.view.total_blocks = 100'000;
  w.load.set_sequences(sequences);
  w.load.set_context_tokens(uint64_t{sequences} * 500);
  return w;
}

// So many sequences on average, as many as are seldom exceeded.
double seldom_more(double sequences) { return sequences + 1.645 * std::sqrt(sequences); }

// Of these 40 fit into 50 ms.
TEST(Demand, IsInWorkers) {
  Worker w = decoding(20);
  const DemandWindow::Rates seen{
      .prompt_seconds = 1.5, .tokens = 100, .admitted = 1, .prompt_tokens = 500, .tpot = 50e-3};
  RoleDemand demand = demand_of(seen, 1, {&w, &w});
  EXPECT_NEAR(demand.prefill, 1.5, 1e-9);
  EXPECT_NEAR(demand.decode, seldom_more(40) / 40, 0.03);  // by the sequences there
  demand = demand_of(seen, 2, {&w, &w});
  EXPECT_NEAR(demand.prefill, 3.0, 1e-9);
  w.load.set_sequences(1);
  w.load.set_context_tokens(500);
  EXPECT_NEAR(demand_of(seen, 16, {&w, &w}).decode, seldom_more(80) / 40,
              0.05);  // by what flows: 800 a second each
}

// Of answers of 5 tokens the first gap counts: a step may take 40 ms, in which 30 fit.
TEST(Demand, ShortAnswersNeedShorterSteps) {
  Worker w = decoding(30);
  DemandWindow::Rates seen{.requests = 10, .tokens = 10 * 20, .prompt_tokens = 500, .tpot = 50e-3};
  EXPECT_NEAR(demand_of(seen, 1, {&w}).decode, seldom_more(30) / 30, 0.05);
  // But no shorter than halfway to that of one alone, which no number of workers makes shorter.
  Worker slow = w;
  slow.view.costs.fixed = 30e-3;
  seen.requests = 50;  // of 4 tokens
  EXPECT_NEAR(demand_of(seen, 1, {&slow}).decode, seldom_more(30) / 10, 0.2);
  seen.requests = 0.1;  // of 2000
  EXPECT_NEAR(demand_of(seen, 1, {&w}).decode, seldom_more(30) / 40, 0.05);
}

// A queue with so many workers, first come first served, prompts of exponential times: few wait
// longer than their target leaves them, and not for the reason that far too many are asked for.
TEST(Demand, OfPrefillLeavesRoomForFewToWaitTooLong) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> unit;
  for (const double busy : {1.3, 4.7, 7.2}) {
    for (const double mean : {0.05, 0.1}) {
      constexpr double kTarget = 0.6;
      const DemandWindow::Rates rates{.requests = busy / mean,
                                      .prompt_seconds = busy,
                                      .ttft = kTarget,
                                      .prompt_spread = 2 * mean};  // E[s²] / E[s]
      const double asked = demand_of(rates, 1, {}).prefill;
      const auto late_with = [&](double workers) {
        std::vector<double> free_at(static_cast<size_t>(workers));
        constexpr int kPrompts = 200'000;
        int late = 0;
        double now = 0;
        for (int i = 0; i < kPrompts; ++i) {
          now += unit(random) * mean / busy;
          double& first = *std::ranges::min_element(free_at);
          const double begin = std::max(first, now);
          late += begin - now > kTarget - mean;
          first = begin + unit(random) * mean;
        }
        return static_cast<double>(late) / kPrompts;
      };
      EXPECT_LE(late_with(std::ceil(asked)), 0.06) << busy << " busy, " << mean << " s";
      EXPECT_GE(late_with(std::floor(asked)), 0.04) << busy << " busy, " << mean << " s";
    }
  }
}

}  // namespace
}  // namespace baton::router
