#include "kvtransfer/transport.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>

#include "common/base/clock.h"
#include "kvtransfer/loopback_transport.h"
#include "kvtransfer/messages.h"
#include "kvtransfer/ucx_transport.h"

namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;

constexpr size_t kBytes = 4u << 20;

// What makes two transports that reach each other, and what in_force() then says.
struct Kit {
  const char* name;
  std::function<std::unique_ptr<Transport>(LoopbackHub&)> make;
  const char* in_force;
};
void PrintTo(const Kit& kit, std::ostream* out) { *out << kit.name; }

std::unique_ptr<Transport> ucx(const char* tls) {
  UcxOptions options;
  options.tls = tls;
  options.net_devices = std::string(tls) == "tcp" ? "lo" : "all";
  result<std::unique_ptr<Transport>> made = make_ucx_transport(options);
  EXPECT_TRUE(made) << made.error().message;
  return std::move(*made);
}
const Kit kKits[] = {
    {"loopback", [](LoopbackHub& hub) { return hub.make_transport("h"); }, "loopback"},
    {"posix", [](LoopbackHub&) { return ucx("posix"); }, "posix"},
    {"sysv", [](LoopbackHub&) { return ucx("sysv"); }, "sysv"},
    {"shm", [](LoopbackHub&) { return ucx("shm"); }, "sysv"},
    {"all", [](LoopbackHub&) { return ucx("all"); }, "sysv"},
    {"tcp", [](LoopbackHub&) { return ucx("tcp"); }, "tcp"},
};

// One side: a transport, its memory and what it has been told.
struct Side {
  explicit Side(std::unique_ptr<Transport> t) : transport(std::move(t)) {
    memory = *transport->allocate(kBytes, Sharing::kNone);
  }
  void poll() {
    while (transport->poll(events)) {
    }
  }
  std::vector<TransportEvent> take(Kind kind) {
    std::vector<TransportEvent> out;
    std::erase_if(events, [&](TransportEvent& e) {
      if (e.kind != kind) return false;
      out.push_back(std::move(e));
      return true;
    });
    return out;
  }

  std::unique_ptr<Transport> transport;
  std::span<std::byte> memory;
  PeerId peer;
  std::vector<TransportEvent> events;
};

class TransportTest : public ::testing::TestWithParam<Kit> {
 protected:
  TransportTest()
      : hub_(make_loopback_hub()), a_(GetParam().make(*hub_)), b_(GetParam().make(*hub_)) {}
  void connect() {
    a_.peer = *a_.transport->connect(b_.transport->endpoint(), "b");
    b_.peer = *b_.transport->connect(a_.transport->endpoint(), "a");
  }
  // Polls both, sleeping on nothing, until `done` or five seconds.
  bool run_until(const std::function<bool()>& done) {
    const TimePoint end = Clock::now() + seconds(5);
    while (!done() && Clock::now() < end) {
      a_.poll();
      b_.poll();
    }
    return done();
  }
  static std::vector<std::byte> bytes(size_t n, int seed) {
    std::vector<std::byte> out(n);
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 31 + seed);
    return out;
  }
  std::vector<TransportEvent> b_gets(size_t n) {
    std::vector<TransportEvent> got;
    EXPECT_TRUE(run_until([&] {
      for (TransportEvent& e : b_.take(Kind::kMessage)) got.push_back(std::move(e));
      return got.size() >= n;
    }));
    return got;
  }

  std::unique_ptr<LoopbackHub> hub_;
  Side a_, b_;
};

TEST_P(TransportTest, MessagesArriveWholeAndInOrder) {
  connect();
  const size_t sizes[] = {1, 100, 5000, 9000, 100000, kMaxMessageBytes};
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(a_.transport->notify(a_.peer, bytes(sizes[i % 6], i)));
  }
  const std::vector<TransportEvent> got = b_gets(60);
  ASSERT_EQ(got.size(), 60u);
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(got[i].peer, b_.peer);
    EXPECT_EQ(got[i].payload, bytes(sizes[i % 6], i)) << i;
  }
}

TEST_P(TransportTest, TooLongAMessageIsRefused) {
  connect();
  EXPECT_FALSE(a_.transport->notify(a_.peer, bytes(kMaxMessageBytes + 1, 0)));
}

TEST_P(TransportTest, ReadsBringTheBytes) {
  connect();
  const std::vector<std::byte> pattern = bytes(kBytes, 3);
  std::memcpy(b_.memory.data(), pattern.data(), kBytes);
  for (const Answer answer : {Answer::kAtOnce, Answer::kInTurns}) {
    std::ranges::fill(a_.memory, std::byte{});
    std::vector<GetOp> ops;
    for (uint64_t i = 0; i < 32; ++i) {
      ops.push_back({i * 100000, a_.memory.data() + (31 - i) * 100000, 64u << 10});
    }
    result<bool> done = a_.transport->get(a_.peer, ops, 77, answer);
    ASSERT_TRUE(done) << done.error().message;
    if (!*done) {
      uint64_t before = 0;
      const auto until_done = [&] {
        for (const TransportEvent& e : a_.take(Kind::kGetProgress)) {
          EXPECT_EQ(answer, Answer::kInTurns);
          EXPECT_EQ(e.cookie, 77u);
          EXPECT_GT(e.bytes, std::exchange(before, e.bytes));
        }
        return !a_.events.empty();
      };
      ASSERT_TRUE(run_until(until_done));
      EXPECT_EQ(a_.events[0].kind, Kind::kGetDone);
      EXPECT_EQ(a_.events[0].cookie, 77u);
      EXPECT_EQ(a_.events.size(), 1u);
      EXPECT_EQ(before > 0, answer == Answer::kInTurns);
      a_.events.clear();
    }
    for (const GetOp& op : ops) {
      EXPECT_EQ(std::memcmp(op.local, pattern.data() + op.remote_offset, op.bytes), 0);
    }
  }
}

TEST_P(TransportTest, StridedReadsBringEachPiece) {
  connect();
  const std::vector<std::byte> pattern = bytes(kBytes, 3);
  std::memcpy(b_.memory.data(), pattern.data(), kBytes);
  const GetOp op{1000, a_.memory.data() + 77, 12000, 40, 90000, 13000};
  result<bool> done = a_.transport->get(a_.peer, {&op, 1}, 77, Answer::kAtOnce);
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_TRUE(*done || run_until([&] { return !a_.events.empty(); }));
  std::vector<std::byte> expected(a_.memory.size());
  for (uint64_t i = 0; i < op.count; ++i) {
    std::memcpy(expected.data() + 77 + i * 13000, pattern.data() + 1000 + i * 90000, 12000);
  }
  EXPECT_EQ(std::memcmp(a_.memory.data(), expected.data(), kBytes), 0);
}

TEST_P(TransportTest, ReadsOutsideTheRegionAreRefused) {
  connect();
  const auto refused = [&](uint64_t offset, uint64_t n) {
    const GetOp op{offset, a_.memory.data(), n};
    return !a_.transport->get(a_.peer, {&op, 1}, 1, Answer::kInTurns);
  };
  EXPECT_TRUE(refused(kBytes, 1));
  EXPECT_TRUE(refused(kBytes - 1, 2));
  EXPECT_TRUE(refused(UINT64_MAX, 2));
  EXPECT_TRUE(refused(0, UINT64_MAX));
  EXPECT_TRUE(refused(0, 0));
  const GetOp beyond{0, a_.memory.data(), 8, kBytes / 16 + 1, 16, 8};
  EXPECT_FALSE(a_.transport->get(a_.peer, {&beyond, 1}, 1, Answer::kAtOnce));
  const GetOp overlapping{0, a_.memory.data(), 8, 2, 4, 8};
  EXPECT_FALSE(a_.transport->get(a_.peer, {&overlapping, 1}, 1, Answer::kAtOnce));
  const GetOp good{kBytes - 1, a_.memory.data(), 1};
  EXPECT_TRUE(a_.transport->get(a_.peer, {&good, 1}, 1, Answer::kAtOnce));
  EXPECT_FALSE(a_.transport->get(PeerId{999}, {&good, 1}, 1, Answer::kAtOnce));
}

// A claim that is believed lets the reader run off what is mapped.
TEST_P(TransportTest, LongerARegionThanThereIsIsNotMapped) {
  Endpoint boasting = b_.transport->endpoint();
  boasting.region.bytes += 64u << 20;
  const auto peer = a_.transport->connect(boasting, "boasting");
  if (!peer) {
    EXPECT_EQ(peer.error().code, Errc::kUnavailable);
  } else {
    EXPECT_LE(a_.transport->mapped(*peer).size(), kBytes);
  }
}

TEST_P(TransportTest, AStrangersMessageIsDropped) {
  a_.peer = *a_.transport->connect(b_.transport->endpoint(), "b");  // b does not connect to a
  ASSERT_TRUE(a_.transport->notify(a_.peer, bytes(10, 0)));
  EXPECT_TRUE(run_until([&] { return b_.transport->dropped_messages() == 1; }));
  EXPECT_TRUE(b_.events.empty());
}

TEST_P(TransportTest, CloseEndsPendingReadsAndSaysSo) {
  connect();
  std::vector<GetOp> ops(16, GetOp{0, a_.memory.data(), 1u << 20});
  int pending = 0;
  for (uint64_t cookie = 1; cookie <= 8; ++cookie) {
    const Answer answer = cookie % 2 == 0 ? Answer::kAtOnce : Answer::kInTurns;
    result<bool> done = a_.transport->get(a_.peer, ops, cookie, answer);
    ASSERT_TRUE(done);
    pending += !*done;
  }
  a_.transport->close(a_.peer);
  ASSERT_TRUE(
      run_until([&] { return !a_.events.empty() && a_.events.back().kind == Kind::kClosed; }));
  (void)a_.take(Kind::kGetProgress);
  EXPECT_EQ(a_.take(Kind::kGetFailed).size() + a_.take(Kind::kGetDone).size(),
            static_cast<size_t>(pending));
  EXPECT_EQ(a_.events.size(), 1u);
  EXPECT_FALSE(a_.transport->notify(a_.peer, bytes(1, 0)));
  // They can meet again.
  b_.transport->close(b_.peer);
  b_.peer = *b_.transport->connect(a_.transport->endpoint(), "a");
  a_.peer = *a_.transport->connect(b_.transport->endpoint(), "b");
  ASSERT_TRUE(a_.transport->notify(a_.peer, bytes(20, 1)));
  EXPECT_EQ(b_gets(1).size(), 1u);
}

TEST_P(TransportTest, TheDescriptorWakes) {
  connect();
  ASSERT_TRUE(a_.transport->notify(a_.peer, bytes(10, 0)));
  b_gets(1);
  // Once the connections are made, which may wake b a few times, a wait ends only when a sends.
  const auto settle = [&] {
    for (int i = 0; i < 1000; ++i) {
      a_.poll();
      b_.poll();
      const result<bool> armed = b_.transport->arm();
      if (armed && *armed) return true;
    }
    return false;
  };
  ::pollfd fd{b_.transport->event_fd(), POLLIN, 0};
  bool quiet = false;
  for (int i = 0; i < 20 && !quiet; ++i) {
    ASSERT_TRUE(settle());
    quiet = ::poll(&fd, 1, 20) == 0;
  }
  ASSERT_TRUE(quiet);
  ASSERT_TRUE(settle());
  ASSERT_TRUE(a_.transport->notify(a_.peer, bytes(10, 1)));
  a_.poll();
  EXPECT_EQ(::poll(&fd, 1, 2000), 1);
  EXPECT_EQ(b_gets(1).size(), 1u);
}

TEST_P(TransportTest, SaysHowReadsTravel) {
  connect();
  EXPECT_EQ(a_.transport->in_force(a_.peer), GetParam().in_force);
  EXPECT_EQ(a_.transport->in_force(PeerId{12345}),
            GetParam().in_force == std::string("loopback") ? "loopback" : "?");
}

TEST_P(TransportTest, AnAddressThatIsNoneIsRefused) {
  Endpoint nobody = b_.transport->endpoint();
  nobody.address = "x";
  EXPECT_FALSE(a_.transport->connect(nobody, "nobody"));
}

// Workers come and go; what one leaves behind would pile up.
TEST_P(TransportTest, PeersThatCameAndWentLeaveNothing) {
  if (GetParam().name == std::string("loopback")) GTEST_SKIP() << "the hub keeps its dead";
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  };
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto meet_and_part = [&] {
    Side other(GetParam().make(*hub_));
    const PeerId there = *a_.transport->connect(other.transport->endpoint(), "other");
    const PeerId here = *other.transport->connect(a_.transport->endpoint(), "a");
    ASSERT_TRUE(a_.transport->notify(there, bytes(20, 1)));
    ASSERT_TRUE(run_until([&] {
      other.poll();
      return !other.events.empty();
    }));
    other.events.clear();
    a_.transport->close(there);
    other.transport->close(here);
    ASSERT_TRUE(run_until([&] {
      other.poll();
      return !other.events.empty();
    }));
    a_.events.clear();
  };
  for (int i = 0; i < 10; ++i) meet_and_part();
  [[maybe_unused]] const auto maps_before = mappings();
  const auto descriptors_before = descriptors();
  for (int i = 0; i < 20; ++i) meet_and_part();
#ifndef __SANITIZE_ADDRESS__  // it keeps what is freed mapped for a while
  EXPECT_LE(mappings(), maps_before + 5);
#endif
  EXPECT_LE(descriptors(), descriptors_before + 5);
}

// As a decode worker: it reads, over whatever there is, and is not read.
class UnreadSideTest : public ::testing::TestWithParam<const char*> {};

TEST_P(UnreadSideTest, ReadsAndIsNotRead) {
  UcxOptions options{.tls = GetParam(), .net_devices = "lo", .is_read = false};
  Side reader(*make_ucx_transport(options));
  options.is_read = true;
  Side owner(*make_ucx_transport(options));
  EXPECT_FALSE(reader.transport->endpoint().shared_memory);
  reader.peer = *reader.transport->connect(owner.transport->endpoint(), "owner");
  const result<PeerId> back = owner.transport->connect(reader.transport->endpoint(), "reader");
  ASSERT_TRUE(back) << back.error().message;
  owner.peer = *back;
  EXPECT_EQ(reader.transport->in_force(reader.peer), GetParam());
  EXPECT_EQ(owner.transport->in_force(owner.peer), "none");
  EXPECT_TRUE(owner.transport->mapped(owner.peer).empty());

  owner.memory[5000] = std::byte{42};
  const GetOp op{5000, reader.memory.data(), 1};
  const result<bool> done = reader.transport->get(reader.peer, {&op, 1}, 1, Answer::kInTurns);
  ASSERT_TRUE(done) << done.error().message;
  const TimePoint end = Clock::now() + seconds(5);
  while (reader.memory[0] != std::byte{42} && Clock::now() < end) reader.poll(), owner.poll();
  EXPECT_EQ(reader.memory[0], std::byte{42});
  const GetOp other{0, owner.memory.data(), 1};
  EXPECT_EQ(owner.transport->get(owner.peer, {&other, 1}, 2, Answer::kInTurns).error().code,
            Errc::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Transports, UnreadSideTest, ::testing::Values("sysv", "posix", "tcp"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(Kits, TransportTest, ::testing::ValuesIn(kKits),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baton::kvtransfer
