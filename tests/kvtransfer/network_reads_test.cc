#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "kvtransfer/ucx_transport.h"
#include "kvtransfer/wire_read.h"

// Reads over TCP: how many at once, in which order, and how they end before their end.
namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;

constexpr uint64_t kBytes = 32u << 20;

// An owner and its readers, in one process; each is polled only when it is wanted.
struct Side {
  explicit Side(UcxOptions options = {}) {
    options.tls = "tcp";
    options.net_devices = "lo";
    transport = *make_ucx_transport(options);
    memory = *transport->allocate(kBytes, Sharing::kNone);
  }
  void poll() {
    for (int i = 0; i < 100 && transport->poll(events); ++i) {
    }
    for (const TransportEvent& e : events) {
      if (e.kind == Kind::kGetProgress) progress[e.cookie] = e.bytes;
      lost |= e.kind == Kind::kPeerLost;
      if (e.kind == Kind::kGetDone || e.kind == Kind::kGetFailed) {
        EXPECT_FALSE(ended.contains(e.cookie));
        ended[e.cookie] = e.kind;
        order.push_back(e.cookie);
      }
    }
    events.clear();
  }
  // Everything of the owner into the same place here.
  void read(uint64_t cookie, uint64_t offset, uint64_t bytes, Answer answer = Answer::kInTurns) {
    const GetOp op{offset, memory.data() + offset, bytes};
    const result<bool> done = transport->get(peer, {&op, 1}, cookie, answer);
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_FALSE(*done);
  }
  size_t count(Kind kind) const {
    return std::ranges::count_if(ended, [kind](const auto& e) { return e.second == kind; });
  }

  std::unique_ptr<Transport> transport;
  std::span<std::byte> memory;
  PeerId peer;
  bool lost = false;
  std::vector<TransportEvent> events;
  std::map<uint64_t, uint64_t> progress;
  std::map<uint64_t, Kind> ended;
  std::vector<uint64_t> order;
};

class NetworkReads : public ::testing::Test {
 protected:
  NetworkReads() {
    for (size_t i = 0; i < owner_.memory.size(); ++i) {
      owner_.memory[i] = static_cast<std::byte>(i * 7 + i / 4096);
    }
    meet(reader_);
  }
  void meet(Side& reader) {
    reader.peer = *reader.transport->connect(owner_.transport->endpoint(), "owner");
    owner_back_ = *owner_.transport->connect(reader.transport->endpoint(), "reader");
    ASSERT_TRUE(owner_.transport->notify(owner_back_, {}));
    ASSERT_TRUE(reader.transport->notify(reader.peer, {}));
    until(
        {&reader}, [] { return false; }, milliseconds(50));
  }
  bool until(std::initializer_list<Side*> readers, const std::function<bool()>& done,
             Duration limit = seconds(10)) {
    const TimePoint end = Clock::now() + limit;
    while (!done() && Clock::now() < end) {
      owner_.poll();
      for (Side* reader : readers) reader->poll();
    }
    return done();
  }
  bool same(const Side& reader, uint64_t offset, uint64_t bytes) const {
    return std::memcmp(reader.memory.data() + offset, owner_.memory.data() + offset, bytes) == 0;
  }

  Side owner_, reader_;
  PeerId owner_back_;  // whom it met last
};

TEST_F(NetworkReads, AShortReadOvertakesALongOne) {
  reader_.read(1, 0, 24u << 20);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress[1] > 0; }));
  reader_.read(2, 25u << 20, 100000);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.size() == 2; }));
  EXPECT_EQ(reader_.order, (std::vector<uint64_t>{2, 1}));
  EXPECT_EQ(reader_.count(Kind::kGetDone), 2u);
  EXPECT_TRUE(same(reader_, 0, 24u << 20));
  EXPECT_TRUE(same(reader_, 25u << 20, 100000));
}

// A reader of the protocol before asks for little, and is answered as before, beside the new way.
TEST_F(NetworkReads, ReadsAtOnceAreAnsweredToo) {
  Side old;
  meet(old);
  reader_.read(1, 0, 8u << 20);
  for (uint64_t i = 0; i < 8; ++i) old.read(i, i << 20, 1u << 20, Answer::kAtOnce);
  ASSERT_TRUE(
      until({&reader_, &old}, [&] { return reader_.ended.size() + old.ended.size() == 9; }));
  EXPECT_EQ(reader_.count(Kind::kGetDone) + old.count(Kind::kGetDone), 9u);
  EXPECT_TRUE(old.progress.empty());
  EXPECT_TRUE(same(reader_, 0, 8u << 20));
  EXPECT_TRUE(same(old, 0, 8u << 20));
}

TEST_F(NetworkReads, WhatIsGivenUpWritesNoMore) {
  reader_.read(1, 0, 24u << 20);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress[1] > 0; }));
  reader_.transport->give_up(reader_.peer, 1);
  reader_.poll();
  ASSERT_TRUE(reader_.ended.contains(1));
  EXPECT_EQ(reader_.ended[1], Kind::kGetFailed);
  // What was on its way arrives, at no place.
  std::ranges::fill(reader_.memory, std::byte{0x55});
  reader_.read(2, 30u << 20, 1000);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(2); }));
  until(
      {&reader_}, [] { return false; }, milliseconds(100));
  EXPECT_EQ(std::ranges::count(reader_.memory.first(24u << 20), std::byte{0x55}), 24 << 20);
  EXPECT_TRUE(same(reader_, 30u << 20, 1000));
  EXPECT_EQ(reader_.order, (std::vector<uint64_t>{1, 2}));
  reader_.transport->give_up(reader_.peer, 1);  // nothing comes of that
  reader_.transport->give_up(reader_.peer, 77);
}

// The window is free again once what was asked for has come, or the window would close for good.
TEST_F(NetworkReads, GivingUpAgainAndAgainLeavesTheWindowOpen) {
  for (uint64_t i = 1; i <= 60; ++i) {
    reader_.read(i, 0, 24u << 20);
    if (i % 3 == 0) until({&reader_}, [&] { return reader_.progress[i] > 0; });
    reader_.transport->give_up(reader_.peer, i);
  }
  reader_.read(100, 0, 8u << 20);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(100); }));
  EXPECT_EQ(reader_.ended[100], Kind::kGetDone);
  EXPECT_TRUE(same(reader_, 0, 8u << 20));
  EXPECT_EQ(reader_.ended.size(), 61u);
}

// An owner that has lost sight of its reader and met it again knows nothing of what it had opened.
// If the reader's connection did not end by that, its reads do, and the window is as before.
TEST_F(NetworkReads, AnOwnerThatForgotRefusesTheRest) {
  for (uint64_t i = 1; i <= 5; ++i) {
    reader_.read(2 * i, 0, 24u << 20);
    reader_.read(2 * i + 1, 0, 24u << 20);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress[2 * i + 1] > 0; }));
    owner_.transport->close(owner_back_);
    owner_.poll();
    owner_back_ = *owner_.transport->connect(reader_.transport->endpoint(), "reader");
    reader_.transport->give_up(reader_.peer, 2 * i + 1);
    const auto ended = [&] { return reader_.ended.size() == 2 * i; };
    if (!until({&reader_}, ended, milliseconds(500)) || reader_.lost) {
      ASSERT_TRUE(reader_.lost);
      reader_.lost = false;
      reader_.transport->close(reader_.peer);
      ASSERT_TRUE(until({&reader_}, ended));
      reader_.peer = *reader_.transport->connect(owner_.transport->endpoint(), "owner");
    }
    reader_.read(100 + i, 25u << 20, 6u << 20);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(100 + i); }));
    EXPECT_EQ(reader_.ended[100 + i], Kind::kGetDone) << i;
    reader_.ended.erase(100 + i);
  }
}

// What is open at the owner is bounded: at the bound, the newest is refused.
TEST_F(NetworkReads, TooManyOpenReadsAreRefused) {
  constexpr uint64_t kReads = kMaxOpenReads + 20;
  for (uint64_t i = 0; i < kReads; ++i) reader_.read(i, 0, 1u << 20);
  ASSERT_TRUE(until(
      {&reader_}, [&] { return reader_.ended.size() == kReads; }, seconds(30)));
  EXPECT_GT(reader_.count(Kind::kGetFailed), 0u);
  EXPECT_LE(reader_.count(Kind::kGetFailed), 20u);
  reader_.read(1000, 0, 1u << 20);  // there is room again
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(1000); }));
  EXPECT_EQ(reader_.ended[1000], Kind::kGetDone);
}

TEST_F(NetworkReads, SoAreTooManyOpenRanges) {
  std::vector<GetOp> ops;
  for (uint64_t i = 0; i < kMaxReadRanges; ++i) {
    ops.push_back({i * 1024, reader_.memory.data() + i * 1024, 1000});
  }
  for (uint64_t cookie = 0; cookie < 3; ++cookie) {
    ASSERT_TRUE(reader_.transport->get(reader_.peer, ops, cookie, Answer::kInTurns));
  }
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.size() == 3; }));
  EXPECT_EQ(reader_.count(Kind::kGetFailed), 1u);
}

// What is asked for while an owner has no connection is dropped there. With its first message over
// the next one, each read that was begun has had its event, and the window is open.
TEST_F(NetworkReads, WhatAnOwnerDidNotHearEnds) {
  for (uint64_t i = 1; i <= 3; ++i) {
    reader_.ended.clear();
    reader_.read(1, 0, 24u << 20);
    reader_.read(2, 0, 24u << 20);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress[2] > 0; }));
    const uint64_t dropped = owner_.transport->dropped_messages();
    owner_.transport->close(owner_back_);
    const auto nothing = [] { return false; };
    until({&reader_}, nothing, milliseconds(50));  // its turns are dropped
    reader_.transport->give_up(reader_.peer, 1);
    reader_.read(3, 25u << 20, 1000, Answer::kAtOnce);
    until({&reader_}, nothing, milliseconds(50));
    ASSERT_FALSE(reader_.lost) << "UCX tells of it now: this test shows nothing";
    EXPECT_GT(owner_.transport->dropped_messages(), dropped);
    EXPECT_EQ(reader_.ended.size(), 1u);
    owner_back_ = *owner_.transport->connect(reader_.transport->endpoint(), "reader");
    ASSERT_TRUE(owner_.transport->notify(owner_back_, {}));
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.size() == 3; })) << i;
    EXPECT_EQ(reader_.count(Kind::kGetFailed), 3u);
    reader_.read(4, 25u << 20, 6u << 20);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(4); })) << i;
    EXPECT_EQ(reader_.ended[4], Kind::kGetDone) << i;
    reader_.progress.clear();
  }
}

// A reader may close its connection and make another without its owner's seeing an end of it. What
// it had open there is over with its first message; or there would be no room left at some time.
TEST_F(NetworkReads, AReaderThatComesAgainLeavesNothingOpen) {
  constexpr uint64_t kOpen = 40, kRounds = kMaxOpenReads / kOpen + 1;
  uint64_t cookie = 1000;
  for (uint64_t round = 0; round < kRounds; ++round) {
    reader_.progress.clear();
    for (uint64_t i = 0; i < kOpen; ++i) reader_.read(round * kOpen + i, 0, 24u << 20);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress.size() == kOpen; }));
    reader_.transport->close(reader_.peer);
    reader_.peer = *reader_.transport->connect(owner_.transport->endpoint(), "owner");
    ASSERT_TRUE(reader_.transport->notify(reader_.peer, {}));
    reader_.read(++cookie, 25u << 20, 1000);
    ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(cookie); })) << round;
    ASSERT_EQ(reader_.ended[cookie], Kind::kGetDone) << round;
    ASSERT_FALSE(owner_.lost) << "UCX tells of it now: this test shows nothing";
  }
  for (uint64_t i = 0; i < kMaxOpenReads; ++i) reader_.read(++cookie, 0, 1u << 20);
  ASSERT_TRUE(until(
      {&reader_}, [&] { return reader_.ended.size() == cookie - 1000 + kRounds * kOpen; },
      seconds(30)));
  EXPECT_EQ(reader_.count(Kind::kGetDone), kRounds + kMaxOpenReads);
}

// It takes nothing, and the owner has no more than a window under way to it: others go on.
TEST_F(NetworkReads, AReaderThatStandsStillHoldsNobodyUp) {
  Side other;
  meet(other);
  reader_.read(1, 0, 24u << 20);
  reader_.poll();
  other.read(1, 0, 24u << 20);
  ASSERT_TRUE(until({&other}, [&] { return other.ended.contains(1); }));
  EXPECT_EQ(other.ended[1], Kind::kGetDone);
  until(
      {}, [] { return false; }, milliseconds(100));
  reader_.poll();
  EXPECT_LE(reader_.progress[1], UcxOptions{}.read_window_bytes);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.ended.contains(1); }));
  EXPECT_TRUE(same(reader_, 0, 24u << 20));
}

// An owner that takes nothing does not hear either that a read is given up, and would keep it open.
TEST_F(NetworkReads, AGiveUpThatCannotBeSentIsTheEndOfThePeer) {
  Side reader({.max_queued_sends = 20});
  meet(reader);
  reader.read(1, 0, 24u << 20);
  ASSERT_TRUE(until({&reader}, [&] { return reader.progress[1] > 0; }));
  const std::vector<std::byte> message(100000);
  int sent = 0;
  while (sent < 10000 && reader.transport->notify(reader.peer, message)) ++sent;
  ASSERT_LT(sent, 10000);
  ASSERT_FALSE(reader.lost);
  reader.transport->give_up(reader.peer, 1);
  reader.poll();
  EXPECT_TRUE(reader.lost);
  EXPECT_EQ(reader.ended[1], Kind::kGetFailed);
}

TEST_F(NetworkReads, OnePollTakesABoundedPart) {
  reader_.read(1, 0, 24u << 20);
  uint64_t before = 0;
  while (!reader_.ended.contains(1)) {
    for (int i = 0; i < 20; ++i) owner_.poll();
    std::vector<TransportEvent> events;
    (void)reader_.transport->poll(events);
    for (const TransportEvent& e : events) {
      if (e.kind == Kind::kGetDone) reader_.ended[1] = e.kind;
      if (e.kind == Kind::kGetProgress) reader_.progress[1] = e.bytes;
    }
    ASSERT_LE(reader_.progress[1] - before, 512u << 10);
    before = reader_.progress[1];
  }
}

// A connection that ends ends what is read over it, once, also what was given up before.
TEST_F(NetworkReads, CloseEndsEach) {
  for (uint64_t i = 1; i <= 20; ++i) reader_.read(i, 0, 4u << 20);
  ASSERT_TRUE(until({&reader_}, [&] { return reader_.progress[1] > 0; }));
  for (uint64_t i = 5; i <= 8; ++i) reader_.transport->give_up(reader_.peer, i);
  reader_.transport->close(reader_.peer);
  reader_.poll();
  EXPECT_EQ(reader_.ended.size(), 20u);
  EXPECT_EQ(reader_.count(Kind::kGetFailed), 20u);
}

}  // namespace
}  // namespace baton::kvtransfer
