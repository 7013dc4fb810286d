// Two sets of workers of one model, side by side, as while new weights are rolled out.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "router/placement/placement.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string key(std::string_view weights, std::string_view tokenizer = "t") {
  return fmt::format("weights={:?} adapter=\"\" tokenizer={:?}", weights, tokenizer);
}

class WorkerSetsTest : public testing::Test {
 protected:
  status try_add(WorkerId id, proto::Role role, std::string_view weights,
                 std::string_view numerics = "avx", std::string_view tokenizer = "t") {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_model_key(key(weights, tokenizer));
    hello.set_numerics(std::string(numerics));
    return pool_.add(hello, "host:1");
  }
  void add(WorkerId id, proto::Role role, std::string_view weights) {
    ASSERT_TRUE(try_add(id, role, weights));
    load(id);
  }
  void load(WorkerId id, std::vector<WorkerId> paired = {}, bool draining = false) {
    proto::Load load;
    load.set_free_blocks(100);
    load.set_total_blocks(100);
    load.set_draining(draining);
    for (const WorkerId other : paired) load.add_paired(other.value);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  // A pair of the old weights and one of the new.
  void add_two_sets() {
    add(kPrefill, proto::ROLE_PREFILL, "old");
    add(kDecode, proto::ROLE_DECODE, "old");
    load(kDecode, {kPrefill});
    add(kPrefill2, proto::ROLE_PREFILL, "new");
    add(kDecode2, proto::ROLE_DECODE, "new");
    load(kDecode2, {kPrefill2});
  }
  std::vector<WorkerId> ids(const std::vector<const Worker*>& workers) const {
    std::vector<WorkerId> out;
    for (const Worker* worker : workers) out.push_back(worker->id);
    return out;
  }
  SetId set_of(WorkerId id) const { return pool_.find(id)->set; }
  std::optional<Placement> pick(uint64_t turn, SetId set = {}, Policy policy = Policy::kGoodput) {
    Placer placer({.policy = policy, .most_local_tokens = 0});
    const auto decision = placer.place(pool_, {.model = "m",
                                               .shape = {.tokens = 16, .output = 10},
                                               .set = set,
                                               .now = now_,
                                               .turn = turn});
    if (!decision) return std::nullopt;
    return decision->placement;
  }

  WorkerPool pool_;
  TimePoint now_{seconds(100)};
};

TEST_F(WorkerSetsTest, OtherWeightsOrNumericsAreAnotherSet) {
  ASSERT_TRUE(try_add(kPrefill, proto::ROLE_PREFILL, "old"));
  ASSERT_TRUE(try_add(kDecode, proto::ROLE_DECODE, "old"));
  ASSERT_TRUE(try_add(kPrefill2, proto::ROLE_PREFILL, "new"));
  ASSERT_TRUE(try_add(kDecode2, proto::ROLE_DECODE, "old", "other numerics"));
  EXPECT_EQ(set_of(kPrefill), set_of(kDecode));
  EXPECT_NE(set_of(kPrefill), set_of(kPrefill2));
  EXPECT_NE(set_of(kPrefill), set_of(kDecode2));
  EXPECT_EQ(pool_.num_sets("m"), 3u);
  EXPECT_EQ(pool_.capacity("m")->fingerprint, "");  // there is none of all of them
}

TEST_F(WorkerSetsTest, AnotherTokenizerIsRefusedAndBothAreNamed) {
  ASSERT_TRUE(try_add(kPrefill, proto::ROLE_PREFILL, "old"));
  const status refused = try_add(kPrefill2, proto::ROLE_PREFILL, "new", "avx", "u");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr("worker 'worker-12' serves 'm' with tokenizer=\"u\""));
  EXPECT_THAT(refused.error().message, HasSubstr("worker 'worker-11' with tokenizer=\"t\""));
}

TEST_F(WorkerSetsTest, NoPairIsOfTwoSets) {
  add_two_sets();
  // Even where workers should say that they can read from the other set's.
  load(kDecode, {kPrefill, kPrefill2});
  load(kDecode2, {kPrefill, kPrefill2});
  for (const Policy policy : {Policy::kGoodput, Policy::kLeastLoaded, Policy::kRoundRobin}) {
    std::set<WorkerId> seen;
    for (uint64_t turn = 0; turn < 8; ++turn) {
      const auto placement = pick(turn, {}, policy);
      ASSERT_TRUE(placement);
      EXPECT_EQ(set_of(placement->prefill), set_of(placement->decode));
      seen.insert(placement->prefill);
    }
    EXPECT_THAT(seen, ElementsAre(kPrefill, kPrefill2)) << name_of(policy);  // both serve
  }
}

TEST_F(WorkerSetsTest, OnlyOneSetsWorkersAreToPair) {
  add_two_sets();
  EXPECT_TRUE(should_dial(*pool_.find(kDecode), *pool_.find(kPrefill)));
  EXPECT_FALSE(should_dial(*pool_.find(kDecode), *pool_.find(kPrefill2)));
}

TEST_F(WorkerSetsTest, ABoundRequestStaysInItsSet) {
  add_two_sets();
  for (uint64_t turn = 0; turn < 4; ++turn) {
    EXPECT_EQ(pick(turn, set_of(kPrefill))->decode, kDecode);
    EXPECT_EQ(pick(turn, set_of(kPrefill2))->decode, kDecode2);
  }
  const SetId old = set_of(kPrefill);
  pool_.remove(kPrefill);
  pool_.remove(kDecode);
  EXPECT_FALSE(pick(0, old));
  EXPECT_TRUE(pick(0));
}

TEST_F(WorkerSetsTest, AnIncompleteSetGetsNothingWhileAnotherIsComplete) {
  add_two_sets();
  pool_.remove(kPrefill2);
  EXPECT_THAT(ids(pool_.workers_of("m").decode), ElementsAre(kDecode));
  EXPECT_THAT(ids(pool_.workers_of(set_of(kDecode2)).decode), ElementsAre(kDecode2));
  // Nor one whose workers have not met yet.
  constexpr WorkerId kPrefill3{13};
  add(kPrefill3, proto::ROLE_PREFILL, "new");
  EXPECT_THAT(ids(pool_.workers_of("m").prefill), ElementsAre(kPrefill));
  load(kDecode2, {kPrefill3});
  EXPECT_THAT(ids(pool_.workers_of("m").prefill), ElementsAre(kPrefill, kPrefill3));
}

TEST_F(WorkerSetsTest, ASetIsIncompleteOnceItsLastOfARoleDrains) {
  add_two_sets();
  load(kPrefill, {}, /*draining=*/true);
  EXPECT_THAT(ids(pool_.workers_of("m").decode), ElementsAre(kDecode2));
  EXPECT_TRUE(pool_.servable("m"));
  load(kDecode2, {});
  EXPECT_FALSE(pool_.servable("m"));
}

TEST_F(WorkerSetsTest, WhereNoneIsCompleteAllAreThere) {
  add(kDecode, proto::ROLE_DECODE, "old");
  add(kPrefill2, proto::ROLE_PREFILL, "new");
  EXPECT_FALSE(pool_.servable("m"));
  EXPECT_THAT(ids(pool_.workers_of("m").decode), ElementsAre(kDecode));
  EXPECT_THAT(ids(pool_.workers_of("m").prefill), ElementsAre(kPrefill2));
  EXPECT_FALSE(pick(0));
  add(kMixed, proto::ROLE_MIXED, "new");
  EXPECT_TRUE(pool_.servable("m"));
  EXPECT_THAT(ids(pool_.workers_of("m").decode), IsEmpty());
}

TEST_F(WorkerSetsTest, ASetThatComesBackIsTheSame) {
  add_two_sets();
  const SetId old = set_of(kPrefill);
  pool_.remove(kPrefill);
  pool_.remove(kDecode);
  add(WorkerId(77), proto::ROLE_MIXED, "old");
  EXPECT_EQ(set_of(WorkerId(77)), old);
}

TEST_F(WorkerSetsTest, NotAllSetsThatEverWereAreRemembered) {
  for (uint64_t i = 0; i < 100; ++i) {
    const WorkerId id(1000 + i);
    add(id, proto::ROLE_MIXED, fmt::format("w{}", i));
    pool_.remove(id);
  }
  EXPECT_LE(pool_.sets().size(), 32u);
}

}  // namespace
}  // namespace baton::router
