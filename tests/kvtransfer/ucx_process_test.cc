#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/types.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/shared_segment.h"
#include "kvtransfer/ucx_transport.h"
#include "tests/kvtransfer/peer.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

// Two processes over UCX: what one process alone cannot show.
namespace baton::kvtransfer {
namespace {

using ::testing::StartsWith;

// The files in /dev/shm that a process has mapped, and only that one: tests run side by side.
std::set<std::string> shared_memory_files(pid_t process) {
  std::set<std::string> files;
  std::ifstream maps(fmt::format("/proc/{}/maps", process));
  for (std::string line; std::getline(maps, line);) {
    if (const size_t at = line.find("/dev/shm/"); at != line.npos) files.insert(line.substr(at));
  }
  return files;
}

// The largest System V segment that a process made, in bytes; 0: there is none.
size_t largest_segment_of(pid_t process) {
  std::ifstream table("/proc/sysvipc/shm");
  std::string line;
  std::getline(table, line);
  size_t largest = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string key, id, mode;
    size_t bytes = 0;
    pid_t creator = 0;
    fields >> key >> id >> mode >> bytes >> creator;
    if (creator == process) largest = std::max(largest, bytes);
  }
  return largest;
}

class UcxProcessTest : public ::testing::TestWithParam<const char*> {
 protected:
  static constexpr uint32_t kTokens = 1000;  // 63 blocks, the last one partly filled
  static constexpr WorkerId kPeer{2};

  explicit UcxProcessTest(uint32_t protocol_max = kProtocolMax)
      : worker_({.id = 1,
                 .tls = GetParam(),
                 .layout = peer_layout(),
                 .num_blocks = kPeerBlocks,
                 .protocol_max = protocol_max}),
        peer_(GetParam(), 2) {
    const result<Hello> theirs = decode_hello(from_hex(peer_.hear()));
    EXPECT_TRUE(theirs) << theirs.error().message;
    peer_endpoint_ = theirs->ranks[0].endpoint;
    peer_.say(to_hex(encode(worker_.driver().hello())));
    EXPECT_TRUE(worker_.driver().add_peer(*theirs, Clock::now()));
    EXPECT_TRUE(until([this] { return !worker_.up_.empty(); }));
  }
  bool until(const std::function<bool()>& done, Duration limit = seconds(10)) {
    return worker_.run_until(done, limit);
  }
  // The next line of the peer, while our side goes on.
  std::string hear() {
    std::string line;
    worker_.run_until([&] { return !line.empty(); }, seconds(10), peer_.fd(),
                      [&] { line = peer_.hear(); });
    return line;
  }
  bool over_shared_memory() const { return std::string(GetParam()) != "tcp"; }
  void expect_nothing_held() {
    EXPECT_EQ(worker_.driver().source().num_handoffs(), 0u);
    EXPECT_EQ(worker_.driver().sink().num_handoffs(), 0u);
    EXPECT_EQ(worker_.driver().sink().reads_in_flight(), 0u);
  }

  RealWorker worker_;
  Peer peer_;
  Endpoint peer_endpoint_;
};

TEST_P(UcxProcessTest, HandsOverBothWays) {
  EXPECT_EQ(worker_.transport_, over_shared_memory() ? "sysv" : "tcp");
  for (uint64_t request = 1; request <= 10; ++request) {
    worker_.reserve(test_key(request), kPeer, 0, kTokens, seconds(10));
    peer_.say(fmt::format("source {} {} 0", request, kTokens));
    ASSERT_TRUE(until([&] { return worker_.joined_.contains(request); }));
    EXPECT_EQ(worker_.wrong_vectors(0, kTokens, request), 0u);
    EXPECT_EQ(hear(), fmt::format("released {}", request));
  }
  for (uint64_t request = 11; request <= 20; ++request) {
    peer_.say(fmt::format("sink {} {}", request, kTokens));
    worker_.hand_over(test_key(request), kPeer, 64, kTokens, request, seconds(10));
    EXPECT_EQ(hear(), fmt::format("joined {} 0", request));
    EXPECT_TRUE(until([&] { return worker_.source_released_.contains(request); }));
  }
  expect_nothing_held();
}

// Of the protocol before: it asks for pieces, and is asked for pieces.
class OlderUcxProcessTest : public UcxProcessTest {
 protected:
  OlderUcxProcessTest() : UcxProcessTest(kProtocolTurns - 1) {}
};

TEST_P(OlderUcxProcessTest, HandsOverBothWays) {
  for (uint64_t request = 1; request <= 10; ++request) {
    worker_.reserve(test_key(request), kPeer, 0, kTokens, seconds(10));
    peer_.say(fmt::format("source {} {} 0", request, kTokens));
    ASSERT_TRUE(until([&] { return worker_.joined_.contains(request); }));
    EXPECT_GT(worker_.joined_.at(request).timings.reads, peer_layout().num_layers());
    EXPECT_EQ(worker_.wrong_vectors(0, kTokens, request), 0u);
    EXPECT_EQ(hear(), fmt::format("released {}", request));
  }
  for (uint64_t request = 11; request <= 20; ++request) {
    peer_.say(fmt::format("sink {} {}", request, kTokens));
    worker_.hand_over(test_key(request), kPeer, 64, kTokens, request, seconds(10));
    EXPECT_EQ(hear(), fmt::format("joined {} 0", request));
    EXPECT_TRUE(until([&] { return worker_.source_released_.contains(request); }));
  }
  expect_nothing_held();
}

INSTANTIATE_TEST_SUITE_P(Transports, OlderUcxProcessTest, ::testing::Values("tcp"));

// A run of neighbouring blocks is one descriptor, and travels as one read, however it travels.
TEST_P(UcxProcessTest, WhatWasParkedIsOneDescriptor) {
  peer_.say(fmt::format("go_on 1 {}", kTokens));
  peer_.say("state");
  EXPECT_THAT(hear(), StartsWith("state 1 "));
  worker_.reserve(test_key(1), kPeer, 0, kTokens, seconds(10));
  ASSERT_TRUE(until([&] { return worker_.joined_.contains(1); }));
  EXPECT_EQ(worker_.joined_.at(1).timings.segments, 1u);
  EXPECT_EQ(worker_.joined_.at(1).timings.reads, 1u);
  EXPECT_EQ(worker_.wrong_vectors(0, kTokens, 1), 0u);
}

TEST_P(UcxProcessTest, ReadsOverlapComputing) {
  worker_.reserve(test_key(1), kPeer, 0, kTokens, seconds(10));
  peer_.say(fmt::format("source 1 {} 30", kTokens));
  ASSERT_TRUE(until([&] { return worker_.joined_.contains(1); }));
  const SinkTimings& t = worker_.joined_.at(1).timings;
  EXPECT_GT(t.joined - t.first_announce, milliseconds(150));  // seven layers came after the first
  EXPECT_LT(t.exposed, milliseconds(100));                    // at most one was left at the commit
}

TEST_P(UcxProcessTest, ASourceKilledInMidTransferEndsTheHandoffSoon) {
  worker_.reserve(test_key(1), kPeer, 0, kTokens, seconds(20));
  peer_.say(fmt::format("source 1 {} 50", kTokens));
  ASSERT_TRUE(until([&] { return worker_.driver().sink().stats().reads > 6; }));
  const pid_t pid = peer_.pid();
  EXPECT_EQ(shared_memory_files(pid), std::set<std::string>());
  const size_t cache_bytes = kPeerBlocks * peer_layout().block_bytes();
  EXPECT_EQ(largest_segment_of(pid) >= cache_bytes, over_shared_memory());
  const TimePoint killed = Clock::now();
  peer_.kill(SIGKILL);
  ASSERT_TRUE(until([&] { return worker_.released_.contains(1); }, seconds(5)));
  EXPECT_LT(Clock::now() - killed, seconds(1));  // told by the kernel, not by silence
  EXPECT_EQ(worker_.sink_failed_.at(1).code, Errc::kUnavailable);
  EXPECT_FALSE(worker_.joined_.contains(1));
  EXPECT_EQ(worker_.lost_, std::vector{kPeer});
  expect_nothing_held();
  EXPECT_LT(largest_segment_of(pid), cache_bytes);  // UCX keeps the dead one's queues
}

TEST_P(UcxProcessTest, ASinkKilledInMidTransferLeavesTheKvParked) {
  peer_.say(fmt::format("sink 1 {}", kTokens));
  worker_.begin(test_key(1), kPeer, kTokens, seconds(20));
  worker_.compute_layers(test_key(1), 0, 4, 0, kTokens, 1);
  ASSERT_TRUE(until([&] { return worker_.driver().source().stats().announces > 0; }));
  peer_.kill(SIGKILL);
  ASSERT_TRUE(until([&] { return worker_.sink_lost_.contains(1); }, seconds(5)));
  worker_.compute_layers(test_key(1), 4, 8, 0, kTokens, 1);
  worker_.finish(test_key(1));
  EXPECT_GT(worker_.driver().source().parked_blocks(), 0u);
  // Another worker takes it.
  Peer other(GetParam(), 3);
  const result<Hello> theirs = decode_hello(from_hex(other.hear()));
  ASSERT_TRUE(theirs);
  other.say(to_hex(encode(worker_.driver().hello())));
  ASSERT_TRUE(worker_.driver().add_peer(*theirs, Clock::now()));
  ASSERT_TRUE(worker_.driver().retarget(test_key(1), Generation{2}, WorkerId{3}, Clock::now()));
  ASSERT_TRUE(until([&] { return worker_.driver().peer_up(WorkerId{3}); }));
  EXPECT_TRUE(worker_.driver().abort(test_key(1, 2), AbortReason::kCancelled, Clock::now()));
  expect_nothing_held();
}

// In UCX's queue in shared memory, such a death leaves a hole: one in fifty of these silenced all
// others for ever.
TEST_P(UcxProcessTest, WhoeverIsKilledWhileSendingSilencesNobody) {
  std::minstd_rand random(1);
  for (uint64_t id = 3; id < 80; ++id) {
    Peer other(GetParam(), id);
    const result<Hello> theirs = decode_hello(from_hex(other.hear()));
    ASSERT_TRUE(theirs);
    other.say(to_hex(encode(worker_.driver().hello())));
    ASSERT_TRUE(worker_.driver().add_peer(*theirs, Clock::now()));
    ASSERT_TRUE(until([&] { return worker_.driver().peer_up(WorkerId{id}); }, seconds(2))) << id;
    other.say("flood");
    until([] { return false; }, milliseconds(5) + microseconds(random() % 3000));
    other.kill(SIGKILL);
    ASSERT_TRUE(until([&] { return !worker_.driver().peer_up(WorkerId{id}); }, seconds(1))) << id;
  }
  EXPECT_TRUE(worker_.driver().peer_up(kPeer));
  expect_nothing_held();
}

TEST_P(UcxProcessTest, AStoppedSourceIsGivenUpInTime) {
  worker_.reserve(test_key(1), kPeer, 0, kTokens, seconds(20));
  peer_.say(fmt::format("source 1 {} 50", kTokens));
  ASSERT_TRUE(until([&] { return worker_.driver().sink().stats().reads > 6; }));
  peer_.kill(SIGSTOP);
  const TimePoint stopped = Clock::now();
  ASSERT_TRUE(until([&] { return worker_.released_.contains(1); }, seconds(8)));
  EXPECT_LT(Clock::now() - stopped, seconds(4));  // peer_timeout and a heartbeat
  expect_nothing_held();
  // It wakes, and what it still says is not heard.
  peer_.kill(SIGCONT);
  until([] { return false; }, milliseconds(300));
  EXPECT_FALSE(worker_.joined_.contains(1));
  expect_nothing_held();
}

TEST_P(UcxProcessTest, WhatAStoppedPeerDoesNotTakeIsBounded) {
  UcxOptions options;
  options.tls = GetParam();
  options.max_queued_sends = 100;
  const std::unique_ptr<Transport> transport = *make_ucx_transport(options);
  ASSERT_TRUE(transport->allocate(1u << 20, Sharing::kNone));
  const PeerId peer = *transport->connect(peer_endpoint_, "peer");
  peer_.kill(SIGSTOP);
  const std::vector<std::byte> payload(10000);
  status sent;
  for (int i = 0; i < 20000 && sent; ++i) sent = transport->notify(peer, payload);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, Errc::kResourceExhausted);
  peer_.kill(SIGKILL);
  transport->close(peer);
  std::vector<TransportEvent> events;
  for (int i = 0; i < 1000; ++i) transport->poll(events);
  EXPECT_EQ(events.back().kind, TransportEvent::Kind::kClosed);
}

TEST_P(UcxProcessTest, OnlyTheSameUserMayAttachTheCache) {
  UcxOptions options;
  options.tls = GetParam();
  const std::unique_ptr<Transport> transport = *make_ucx_transport(options);
  const auto memory = transport->allocate(1u << 20, Sharing::kNone);
  ASSERT_TRUE(memory);
  const result<int> number = segment_at(memory->data());
  if (!over_shared_memory()) {
    EXPECT_FALSE(number);
    return;
  }
  if (!number) GTEST_SKIP() << "no System V shared memory here";
  shmid_ds about{};
  ASSERT_EQ(::shmctl(*number, IPC_STAT, &about), 0);
  EXPECT_EQ(about.shm_perm.mode & 0777, 0600);
}

// It cannot be told goodbye, and whoever leaves does not wait for that.
TEST_P(UcxProcessTest, AStoppedPeerIsLeftBehind) {
  for (const bool closed_before : {true, false}) {
    UcxOptions options;
    options.tls = GetParam();
    std::unique_ptr<Transport> transport = *make_ucx_transport(options);
    ASSERT_TRUE(transport->allocate(1u << 20, Sharing::kNone));
    const PeerId peer = *transport->connect(peer_endpoint_, "peer");
    std::vector<TransportEvent> events;
    for (int i = 0; i < 1000; ++i) transport->poll(events);
    peer_.kill(SIGSTOP);
    const std::vector<std::byte> payload(10000);
    for (int i = 0; i < 2000; ++i) ASSERT_TRUE(transport->notify(peer, payload));
    if (closed_before) {
      transport->close(peer);
      transport->poll(events);
      ASSERT_FALSE(events.empty());
      EXPECT_EQ(events.back().kind, TransportEvent::Kind::kClosed);
    }
    transport.reset();
    peer_.kill(SIGCONT);
  }
  until([] { return false; }, milliseconds(300));  // it hears the rest, which is of nobody's
  EXPECT_TRUE(worker_.driver().peer_up(kPeer));
}

INSTANTIATE_TEST_SUITE_P(Transports, UcxProcessTest, ::testing::Values("shm", "tcp"),
                         [](const auto& info) {
                           return std::string(info.param) == "tcp" ? "tcp" : "shm";
                         });

}  // namespace
}  // namespace baton::kvtransfer
