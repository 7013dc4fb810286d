#include "router/placement/placement.h"

#include <gtest/gtest.h>

#include <set>

#include "common/net/protocol.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

class PlacementTest : public testing::Test {
 protected:
  void add(WorkerId id, proto::Role role, std::vector<WorkerId> paired = {},
           uint64_t queued_tokens = 0, uint32_t running = 0) {
    ASSERT_TRUE(pool_.add(make_hello(id, role), "host:1"));
    load(id, std::move(paired), queued_tokens, running);
  }
  void load(WorkerId id, std::vector<WorkerId> paired, uint64_t queued_tokens, uint32_t running,
            uint32_t free_blocks = 100) {
    proto::Load load;
    load.set_free_blocks(free_blocks);
    load.set_total_blocks(100);
    load.set_queued_tokens(queued_tokens);
    load.set_running(running);
    for (const WorkerId other : paired) load.add_paired(other.value);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  std::optional<Placement> pick(uint64_t turn = 0, uint32_t choices = 1, WorkerId avoid = {}) {
    return place({.model = "m",
                  .shape = {.tokens = 16, .choices = choices},
                  .avoid = avoid,
                  .now = now_,
                  .turn = turn});
  }
  std::optional<Placement> place(const PlacementQuery& query) {
    const auto decision = placer_.place(pool_, query);
    if (!decision) return std::nullopt;
    return decision->placement;
  }

  WorkerPool pool_;
  Placer placer_{{.policy = Policy::kLeastLoaded}};
  TimePoint now_{seconds(100)};
};

TEST_F(PlacementTest, TakesTheShorterPromptQueueAndTheEmptierBatch) {
  add(kPrefill, proto::ROLE_PREFILL, {}, 5000);
  add(kPrefill2, proto::ROLE_PREFILL, {}, 100);
  add(kDecode, proto::ROLE_DECODE, {kPrefill, kPrefill2}, 0, 1);
  add(kDecode2, proto::ROLE_DECODE, {kPrefill, kPrefill2}, 0, 3);
  for (uint64_t turn = 0; turn < 4; ++turn) {
    EXPECT_EQ(pick(turn)->prefill, kPrefill2);
    EXPECT_EQ(pick(turn)->decode, kDecode);
  }
}

TEST_F(PlacementTest, OnlyPairsCount) {
  add(kPrefill, proto::ROLE_PREFILL);
  add(kPrefill2, proto::ROLE_PREFILL, {}, 100'000);
  add(kDecode, proto::ROLE_DECODE, {kPrefill2});
  EXPECT_EQ(pick()->prefill, kPrefill2);
}

TEST_F(PlacementTest, EqualsTakeTurns) {
  add(kPrefill, proto::ROLE_PREFILL);
  add(kPrefill2, proto::ROLE_PREFILL);
  add(kDecode, proto::ROLE_DECODE, {kPrefill, kPrefill2});
  add(kDecode2, proto::ROLE_DECODE, {kPrefill, kPrefill2});
  std::set<std::pair<WorkerId, WorkerId>> seen;
  for (uint64_t turn = 0; turn < 4; ++turn) seen.emplace(pick(turn)->prefill, pick(turn)->decode);
  EXPECT_EQ(seen.size(), 4u);
}

TEST_F(PlacementTest, MixedAndPairsCompete) {
  add(kMixed, proto::ROLE_MIXED, {}, 0, 3);
  add(kPrefill, proto::ROLE_PREFILL);
  add(kDecode, proto::ROLE_DECODE, {kPrefill});
  EXPECT_EQ(pick()->decode, kDecode);
  load(kMixed, {}, 0, 0);
  load(kDecode, {kPrefill}, 0, 4);
  EXPECT_TRUE(pick()->mixed());
}

TEST_F(PlacementTest, WhatEndsWithItsFirstTokenNeedsNobodyToDecode) {
  PlacementQuery query{.model = "m", .shape = {.tokens = 16}, .now = now_, .ends_at_first = true};
  add(kDecode, proto::ROLE_DECODE, {kPrefill});
  EXPECT_FALSE(place(query));
  add(kPrefill, proto::ROLE_PREFILL, {}, 500);
  ASSERT_TRUE(place(query));
  EXPECT_EQ(place(query)->prefill, kPrefill);
  EXPECT_EQ(place(query)->decode, kPrefill);
  query.park = true;
  EXPECT_FALSE(place(query)) << "there is nothing to be read";
  query.park = false;
  query.shape.choices = 1000;
  EXPECT_TRUE(place(query)) << "which refuses it by itself: nobody need wait behind it";
  query.shape.choices = 1;
  add(kPrefill2, proto::ROLE_PREFILL, {}, 100);
  EXPECT_EQ(place(query)->prefill, kPrefill2);
}

TEST_F(PlacementTest, BlocksInUseCountAsLoad) {
  add(kMixed, proto::ROLE_MIXED);
  add(WorkerId(32), proto::ROLE_MIXED);
  load(kMixed, {}, 0, 1, /*free_blocks=*/5);
  load(WorkerId(32), {}, 0, 2, /*free_blocks=*/90);
  EXPECT_EQ(pick()->decode, WorkerId(32));
}

TEST_F(PlacementTest, WhoIsFullDrainingOrOfAnotherModelIsLeftOut) {
  add(kMixed, proto::ROLE_MIXED);
  EXPECT_TRUE(pick());
  pool_.find(kMixed)->full_until = now_ + seconds(1);
  EXPECT_FALSE(pick());
  now_ += seconds(1);
  EXPECT_TRUE(pick());
  pool_.find(kMixed)->placed_sequences = 8;  // two batches of 4
  EXPECT_FALSE(pick());
  pool_.find(kMixed)->placed_sequences = 6;
  EXPECT_TRUE(pick(0, 2));
  EXPECT_FALSE(pick(0, 3));
  proto::Load load;
  load.set_draining(true);
  pool_.update(kMixed, std::move(load), now_);
  EXPECT_FALSE(pick());
  EXPECT_FALSE(pool_.servable("m"));
}

TEST_F(PlacementTest, AvoidedIsBetterThanNone) {
  add(kMixed, proto::ROLE_MIXED);
  EXPECT_EQ(pick(0, 1, kMixed)->decode, kMixed);
  add(WorkerId(32), proto::ROLE_MIXED, {}, 100'000, 3);
  EXPECT_EQ(pick(0, 1, kMixed)->decode, WorkerId(32));
}

TEST_F(PlacementTest, CapacityIsTheLeastOfTheWorkersAndIsRemembered) {
  EXPECT_FALSE(pool_.capacity("m"));
  proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
  ASSERT_TRUE(pool_.add(hello, ""));
  hello = make_hello(WorkerId(32), proto::ROLE_MIXED);
  hello.set_total_blocks(10);  // 160 tokens
  hello.set_vocab_size(256);
  ASSERT_TRUE(pool_.add(hello, ""));
  EXPECT_EQ(pool_.capacity("m")->max_context, 160u);
  EXPECT_EQ(pool_.capacity("m")->vocab_size, 256u);
  pool_.remove(WorkerId(32));
  EXPECT_EQ(pool_.capacity("m")->max_context, 1000u);
  pool_.remove(kMixed);
  EXPECT_EQ(pool_.capacity("m")->max_context, 1000u);
}

TEST_F(PlacementTest, ChoicesAreLimitedByThoseThatDecode) {
  proto::WorkerHello prefill = make_hello(kPrefill, proto::ROLE_PREFILL);
  prefill.set_max_sequences(2);
  ASSERT_TRUE(pool_.add(prefill, ""));  // the first one by its id
  EXPECT_GT(pool_.capacity("m")->max_sequences, 1000u);
  ASSERT_TRUE(pool_.add(make_hello(kDecode, proto::ROLE_DECODE), ""));
  EXPECT_EQ(pool_.capacity("m")->max_sequences, 4u);
  pool_.remove(kDecode);
  EXPECT_EQ(pool_.capacity("m")->max_sequences, 4u);  // it may come back
  proto::Load load;
  load.set_role(proto::ROLE_MIXED);
  ASSERT_TRUE(pool_.update(kPrefill, load, now_));
  EXPECT_EQ(pool_.capacity("m")->max_sequences, 2u);
}

TEST_F(PlacementTest, AProtocolThatIsNotSpokenIsRefusedAndBothAreNamed) {
  proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
  hello.set_protocol_min(net::kProtocolMax + 1);
  hello.set_protocol_max(net::kProtocolMax + 2);
  const status newer = pool_.add(hello, "");
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().message,
            "worker 'worker-31': speaks protocol 6 to 7, this router 1 to 5");
  hello.set_protocol_min(1);
  EXPECT_TRUE(pool_.add(hello, ""));
}

TEST_F(PlacementTest, HellosThatCannotBeAreRefused) {
  const auto refused = [&](auto change) {
    proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
    change(hello);
    return !pool_.add(hello, "");
  };
  EXPECT_TRUE(
      refused([](auto& h) { h.set_protocol_min(net::kProtocolMax + 1), h.set_protocol_max(99); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_protocol_max(0); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_worker(0); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_name("a\nb"); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_name(std::string(200, 'a')); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_role(proto::ROLE_UNSPECIFIED); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_block_tokens(0); }));
  EXPECT_TRUE(refused([](auto& h) { h.set_max_sequences(0); }));
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto&) {}));  // twice
}

}  // namespace
}  // namespace baton::router
