// A worker whose role changes while it works.
#include <algorithm>

#include "tests/worker/node_fixture.h"

namespace baton::worker {
namespace {

class RoleTest : public NodeTest {
 protected:
  Member& add_auto(proto::Role start) { return add(start, "auto", 16, 8u << 20, 0, true); }
};

TEST_F(RoleTest, EachOfAPairTakesTheOthersRole) {
  Member& mixed = add(proto::ROLE_MIXED);
  Member& one = add_auto(proto::ROLE_PREFILL);
  Member& other = add_auto(proto::ROLE_DECODE);
  EXPECT_TRUE(one.hello->auto_role());
  EXPECT_FALSE(mixed.hello->auto_role());
  EXPECT_TRUE(std::ranges::equal(one.load.routers(), std::vector<uint64_t>{77}));
  pair(other, one);
  ASSERT_TRUE(run_until([&] { return one.load.paired_size() == 1; }));
  uint64_t next = 100;
  Member *prefill = &one, *decode = &other;
  for (int round = 0; round < 4; ++round) {
    // The first again: what it left in the caches was not all computed to be handed off.
    for (const uint32_t length : {100u, 200u, 31u, 200u}) {
      const uint64_t a = next++, b = next++;
      submit(mixed, spec(a, length, 20, 2, 0.8f));
      split(*prefill, *decode, spec(b, length, 20, 2, 0.8f));
      ASSERT_TRUE(run_until([&] { return finished(a, 2) && finished(b, 2); }));
      ASSERT_FALSE(heard_[b].failed) << heard_[b].failed->message();
      EXPECT_EQ(heard_[a].tokens, heard_[b].tokens) << length << " in round " << round;
      EXPECT_TRUE(heard_[b].handed_off);
    }
    set_role(*prefill, proto::ROLE_DECODE);
    set_role(*decode, proto::ROLE_PREFILL);
    std::swap(prefill, decode);
  }
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(RoleTest, WhatRunsEndsWhereItIs) {
  Member& mixed = add(proto::ROLE_MIXED);
  Member& prefill = add_auto(proto::ROLE_PREFILL);
  Member& decode = add_auto(proto::ROLE_DECODE);
  pair(decode, prefill);
  for (const uint64_t request : {1, 2, 3, 4}) {
    const auto length = static_cast<uint32_t>(40 * request);
    submit(mixed, spec(10 + request, length, 150));
    split(prefill, decode, spec(request, length, 150));
  }
  // At whatever moment of theirs.
  for (const auto role : {proto::ROLE_MIXED, proto::ROLE_DECODE}) set_role(prefill, role);
  set_role(decode, proto::ROLE_PREFILL);
  for (const uint64_t request : {1, 2, 3, 4}) {
    ASSERT_TRUE(run_until([&] { return finished(request) && finished(10 + request); }));
    ASSERT_FALSE(heard_[request].failed) << heard_[request].failed->message();
    EXPECT_EQ(heard_[request].tokens, heard_[10 + request].tokens);
  }
  // What is new is by the new role, and the same worker may be asked again later.
  reserve(decode, prefill, spec(50, 40, 4));
  EXPECT_FALSE(heard_[50].reserved->granted());
  EXPECT_FALSE(heard_[50].failed);
  submit(decode, spec(51, 40, 4));  // it was on its way
  ASSERT_TRUE(run_until([&] { return finished(51); }));
  EXPECT_FALSE(heard_[51].failed);
  EXPECT_TRUE(run_until([&] { return nothing_held(); }));
}

TEST_F(RoleTest, AWorkerOfAFixedRoleKeepsIt) {
  Member& fixed = add(proto::ROLE_MIXED);
  proto::Frame f;
  f.mutable_set_role()->set_role(proto::ROLE_PREFILL);
  ASSERT_TRUE(fixed.link->send(f));
  submit(fixed, spec(1, 40, 4));
  ASSERT_TRUE(run_until([&] { return finished(1); }));
  EXPECT_EQ(fixed.load.role(), proto::ROLE_MIXED);
  EXPECT_EQ(fixed.load.routers_size(), 0);
}

// What other processes were built to understand.
TEST(RoleFrames, AreTheseBytes) {
  proto::Frame order;
  order.mutable_set_role()->set_role(proto::ROLE_DECODE);
  EXPECT_EQ(order.SerializeAsString(), std::string("\xca\x01\x02\x08\x02"));
  proto::WorkerHello hello;
  hello.set_auto_role(true);
  EXPECT_EQ(hello.SerializeAsString(), std::string("\xa0\x01\x01"));
  proto::Load load;
  load.add_routers(3);
  EXPECT_EQ(load.SerializeAsString(), std::string("\x7a\x08\x03\0\0\0\0\0\0\0", 10));
}

}  // namespace
}  // namespace baton::worker
