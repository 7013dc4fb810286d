#include "kvtransfer/read_turns.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace baton::kvtransfer {
namespace {

using Asked = std::pair<uint64_t, uint64_t>;  // read, end

std::vector<Asked> all_turns(ReadTurns& turns) {
  std::vector<Asked> asked;
  while (const auto turn = turns.next()) asked.emplace_back(turn->read, turn->end);
  return asked;
}

TEST(ReadTurns, ReadsTakeTurnsWithinTheWindow) {
  ReadTurns turns(10, 40);
  turns.open(1, 1000);
  turns.open(2, 25);
  turns.open(3, 5);
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{1, 10}, {2, 10}, {3, 5}, {1, 20}}));
  EXPECT_EQ(turns.under_way(), 35u);
  EXPECT_TRUE(turns.arrived(3, 5));
  turns.forget(3);
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{2, 20}}));
  EXPECT_TRUE(turns.arrived(1, 10));
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{1, 30}}));
}

// A short read does not wait for a long one, however long that is.
TEST(ReadTurns, AShortOneWaitsForOneTurnOfEachOther) {
  ReadTurns turns(10, 20);
  turns.open(1, UINT64_MAX);
  (void)all_turns(turns);
  turns.open(2, 10);
  EXPECT_TRUE(turns.arrived(1, 10));
  EXPECT_TRUE(turns.arrived(1, 10));
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{1, 30}, {2, 10}}));
}

TEST(ReadTurns, ATurnLargerThanTheWindowIsAskedForAlone) {
  ReadTurns turns(100, 10);
  turns.open(1, 250);
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{1, 100}}));
  EXPECT_TRUE(turns.arrived(1, 100));
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{1, 200}}));
}

TEST(ReadTurns, WhatWasNotAskedForIsRefused) {
  ReadTurns turns(10, 10);
  turns.open(1, 30);
  EXPECT_FALSE(turns.arrived(1, 1));
  (void)turns.next();
  EXPECT_FALSE(turns.arrived(1, 11));
  EXPECT_FALSE(turns.arrived(2, 1));
  EXPECT_TRUE(turns.arrived(1, 10));
  EXPECT_FALSE(turns.arrived(1, 1));
}

// What was asked for of a read given up still comes, and is in the window until it has.
TEST(ReadTurns, OneGivenUpIsAskedForNoFurther) {
  ReadTurns turns(10, 20);
  turns.open(1, 100);
  turns.open(2, 100);
  turns.open(3, 100);
  (void)all_turns(turns);  // one of 1, one of 2
  EXPECT_FALSE(turns.close(1));
  EXPECT_TRUE(turns.close(3));  // it was not asked for
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{}));
  EXPECT_TRUE(turns.arrived(1, 4));
  EXPECT_EQ(turns.under_way(), 16u);
  turns.forget(1);  // the rest was lost
  EXPECT_EQ(all_turns(turns), (std::vector<Asked>{{2, 20}}));
  turns.forget(2);
  EXPECT_EQ(turns.under_way(), 0u);
}

// Whatever happens: never more than the window, every byte is asked for once and in order, and the
// longest wait is a turn of each other.
TEST(ReadTurns, EveryByteOnceAndNobodyIsForgotten) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const uint64_t turn = 1 + random() % 50, window = turn + random() % 200;
    ReadTurns turns(turn, window);
    std::map<uint64_t, uint64_t> bytes, asked, arrived;
    std::set<uint64_t> given_up;
    uint64_t next = 1, steps_left = 400;
    while (steps_left > 0 || !bytes.empty()) {
      if (steps_left > 0) --steps_left;
      if (steps_left > 0 && random() % 3 == 0) {
        bytes[next] = 1 + random() % 500;
        turns.open(next, bytes[next]);
        ++next;
      }
      if (steps_left > 0 && random() % 10 == 0 && !bytes.empty()) {
        const uint64_t id = bytes.begin()->first;
        if (turns.close(id)) {
          EXPECT_EQ(asked[id], 0u);
          bytes.erase(id);
        } else if (asked[id] == arrived[id]) {
          turns.forget(id);
          bytes.erase(id);
        } else {
          given_up.insert(id);
        }
      }
      while (const auto t = turns.next()) {
        ASSERT_TRUE(bytes.contains(t->read) && !given_up.contains(t->read)) << seed;
        ASSERT_EQ(t->first, asked[t->read] == 0);
        ASSERT_GT(t->end, asked[t->read]);
        ASSERT_LE(t->end - asked[t->read], turn);
        ASSERT_LE(t->end, bytes[t->read]);
        asked[t->read] = t->end;
      }
      ASSERT_LE(turns.under_way(), window);
      uint64_t under_way = 0;
      for (const auto& [id, n] : bytes) under_way += asked[id] - arrived[id];
      ASSERT_EQ(turns.under_way(), under_way);
      if (bytes.empty()) continue;
      ASSERT_GT(under_way, 0u) << "nobody is asked, seed " << seed;
      auto some = std::next(bytes.begin(), random() % bytes.size());
      while (asked[some->first] == arrived[some->first]) {
        if (++some == bytes.end()) some = bytes.begin();
      }
      const uint64_t id = some->first, n = 1 + random() % (asked[id] - arrived[id]);
      ASSERT_TRUE(turns.arrived(id, n));
      arrived[id] += n;
      if (arrived[id] == (given_up.contains(id) ? asked : bytes)[id]) {
        turns.forget(id);
        bytes.erase(some);
      }
    }
    EXPECT_EQ(turns.under_way(), 0u);
  }
}

}  // namespace
}  // namespace baton::kvtransfer
