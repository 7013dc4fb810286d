#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "tests/kvtransfer/peer.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

// Every state of a hand-off (docs/handoff.md), in which one of its two processes is struck. The
// other one is this process: it must come out of it as the tables say, in a bounded time, with
// nothing held and no wrong byte joined, and do the same work with a third process. A process that
// was only stopped then wakes and says what it still has to say.
namespace baton::kvtransfer {
namespace {

constexpr uint32_t kTokens = 1000;  // 63 blocks, the last one partly filled
constexpr uint32_t kLayers = 8, kHalf = 4;
constexpr WorkerId kVictim{2}, kOther{3};

// Sanitizers are slow.
Duration patiently(Duration d) {
  const char* value = std::getenv("BATON_TEST_PATIENCE");
  return std::chrono::duration_cast<Duration>(
      d * std::clamp(value == nullptr ? 1.0 : std::atof(value), 1.0, 3.0));
}

// --- the table ----------------------------------------------------------------------------------

// What may become of the survivor's side; bits.
enum Fate : unsigned {
  kKept = 1,          // nothing: the source keeps its KV, and no lease runs
  kForgotten = 2,     // the source's early credit is gone
  kSinkLost = 4,      // the source keeps its KV for another reader
  kSourceFailed = 8,  // the source has given it up
  kReleased = 16,     // the source knows that the sink has it
  kSinkFailed = 32,   // the sink has given it up, and has its blocks back
  kQuarantined = 64,  // the sink has given it up; its blocks come back when the reads end
  kJoined = 128,      // the sink has all of it, and every byte is right
};

enum class Side : uint8_t { kSource, kSink };
enum class Strike : uint8_t { kKilled, kStopped, kSilent };

struct StrikeInfo {
  Strike strike;
  const char* name;
  // What the survivor goes by: the kernel's word, the hand-off's lease, or the worker's silence.
  // The other two are out of reach.
  Duration lease, peer_timeout;
};
const StrikeInfo kStrikes[] = {
    {Strike::kKilled, "Killed", seconds(60), seconds(60)},
    {Strike::kStopped, "StoppedBeyondTheLease", milliseconds(600), seconds(60)},
    {Strike::kSilent, "StoppedUntilItCountsAsDead", seconds(60), milliseconds(800)},
};

class UcxFaultMatrix;
struct State {
  Side victim;
  const char* name;  // the victim's state, as the tables call it; or what is special
  void (UcxFaultMatrix::*bring_about)();
  unsigned killed, stopped, silent;  // Fates that are right
};
extern const std::vector<State> kStates;

using Cell = std::tuple<const char*, size_t, size_t>;  // transport, of kStates, of kStrikes

// --- one cell -----------------------------------------------------------------------------------

class UcxFaultMatrix : public ::testing::TestWithParam<Cell> {
 public:
  UcxFaultMatrix()
      : state_(kStates[std::get<1>(GetParam())]),
        strike_(kStrikes[std::get<2>(GetParam())]),
        lease_(patiently(strike_.lease)),
        peer_timeout_(patiently(strike_.peer_timeout)),
        worker_({.id = 1,
                 .tls = tls(),
                 .layout = peer_layout(),
                 .num_blocks = kPeerBlocks,
                 .lease = lease_,
                 .peer_timeout = peer_timeout_}),
        victim_(tls(), kVictim.value, timers()),
        other_(tls(), kOther.value, timers()) {
    spdlog::set_level(spdlog::level::off);
    for (Peer* peer : {&victim_, &other_}) {
      hellos_.push_back(peer->hear());
      peer->say(to_hex(encode(worker_.driver().hello())));
      meet(hellos_.back());
    }
  }

  const char* tls() const { return std::get<0>(GetParam()); }
  std::string timers() const {
    const auto ms = [](Duration d) { return std::chrono::ceil<milliseconds>(d).count(); };
    return fmt::format("{} {}", ms(lease_), ms(peer_timeout_));
  }
  void meet(const std::string& hello) {
    const result<Hello> theirs = decode_hello(from_hex(hello));
    ASSERT_TRUE(theirs) << theirs.error().message;
    ASSERT_TRUE(worker_.driver().add_peer(*theirs, Clock::now()));
    ASSERT_TRUE(until([&] { return worker_.driver().peer_up(theirs->worker); }));
  }
  bool until(const std::function<bool()>& done, Duration limit = seconds(5)) {
    return worker_.run_until(done, patiently(limit));
  }
  void go_on_for(Duration time) {
    worker_.run_until([] { return false; }, time);
  }
  const Source& source() { return worker_.driver().source(); }
  const Sink& sink() { return worker_.driver().sink(); }

  // A peer's next line of this kind, while our side goes on or, if not `alive`, does nothing.
  // Whatever it joins is right.
  std::string hear(Peer& peer, const std::string& kind, bool alive = true) {
    for (std::string line;;) {
      line.clear();
      if (alive) {
        worker_.run_until([&] { return !line.empty(); }, patiently(seconds(5)), peer.fd(),
                          [&] { line = peer.hear(); });
      } else {
        line = peer.hear();
      }
      EXPECT_TRUE(!line.starts_with("joined") || line.ends_with(" 0")) << "wrong KV: " << line;
      if (line.starts_with(kind)) return line;
      if (line.empty()) {
        ADD_FAILURE() << "it does not say: " << kind;
        return line;
      }
    }
  }
  struct Held {
    uint64_t handoffs = 0, early = 0, parked_blocks = 0, blocks = 0, reads = 0, bytes_read = 0;
    bool nothing() const { return handoffs + early + parked_blocks + blocks + reads == 0; }
  };
  Held ask(Peer& peer, bool alive = true) {
    peer.say("state");
    std::istringstream words(hear(peer, "state", alive));
    std::string word;
    Held h;
    words >> word >> h.handoffs >> h.early >> h.parked_blocks >> h.blocks >> h.reads >>
        h.bytes_read;
    return h;
  }
  bool ask_until(Peer& peer, const std::function<bool(const Held&)>& done) {
    const TimePoint end = Clock::now() + patiently(seconds(5));
    while (!done(ask(peer))) {
      if (Clock::now() > end) return false;
      go_on_for(milliseconds(5));
    }
    return true;
  }
  void expect_nothing_held() {
    EXPECT_EQ(source().num_handoffs(), 0u);
    EXPECT_EQ(source().num_early_credits(), 0u);
    EXPECT_EQ(source().parked_blocks(), 0u);
    EXPECT_EQ(source().waiting_blocks(), 0u);
    EXPECT_EQ(sink().num_handoffs(), 0u);
    EXPECT_EQ(sink().held_blocks(), 0u);
    EXPECT_EQ(sink().reads_in_flight(), 0u);
  }

  // --- bringing it about: the victim is the source, we are the sink ---
  void reserve(WorkerId from = kVictim, uint64_t request = 1, uint64_t generation = 1) {
    worker_.reserve(test_key(request, generation), from, 0, kTokens, seconds(60));
  }
  void tell(const std::string& line) { victim_.say(fmt::format(fmt::runtime(line), kTokens)); }

  void source_not_begun() {
    reserve();
    ASSERT_TRUE(ask_until(victim_, [](const Held& h) { return h.early == 1; }));
  }
  void source_computing() {
    tell("begin 1 {}");
    tell("layers 1 4");
    ASSERT_EQ(ask(victim_).handoffs, 1u);
    credit_after_strike_ = true;
  }
  void source_streaming() {
    reserve();
    tell("begin 1 {}");
    tell("layers 1 4");
    ASSERT_TRUE(until([&] { return sink().stats().reads > 0; }));
  }
  void source_parked() {
    tell("begin 1 {}");
    worker_.driver().refuse(test_key(1), kVictim, seconds(1), Clock::now());
    tell("layers 1 8");
    tell("finish 1");
    ASSERT_GT(ask(victim_).parked_blocks, 0u);
    credit_after_strike_ = true;
  }
  // Its last words are on their way, and we have not listened.
  void source_committed() {
    source_streaming();
    tell("layers 1 8");
    tell("finish 1");
    ASSERT_EQ(ask(victim_, false).handoffs, 1u);
  }
  // We gave it up while we read.
  void source_read_by_a_draining_sink() {
    reserve();
    tell("begin 1 {}");
    tell("layers 1 8");
    ASSERT_TRUE(until([&] { return sink().reads_in_flight() > 0; }));
    victim_.kill(SIGSTOP);
    ASSERT_TRUE(worker_.driver().cancel(test_key(1), Clock::now()));
  }

  // --- the victim is the sink, we are the source ---
  void begin() { worker_.begin(test_key(1), kVictim, kTokens, seconds(60)); }
  void compute(uint32_t end, uint64_t generation = 1) {
    if (layer_ < end) {
      worker_.compute_layers(test_key(1, generation), layer_, end, 0, kTokens, 1);
      layer_ = end;
    }
  }
  void finish(uint64_t generation = 1) {
    if (!std::exchange(finished_, true)) worker_.finish(test_key(1, generation));
  }

  void sink_reserved() {
    tell("sink 1 {}");
    ASSERT_TRUE(until([&] { return source().num_early_credits() == 1; }));
  }
  void sink_not_yet_asked_computing() {
    begin();
    compute(kHalf);
  }
  void sink_not_yet_asked_parked() {
    begin();
    compute(kLayers);
    finish();
    ASSERT_GT(source().parked_blocks(), 0u);
  }
  void sink_reading() {
    sink_reserved();
    begin();
    compute(kHalf);
    ASSERT_TRUE(ask_until(victim_, [](const Held& h) { return h.bytes_read > 0; }));
  }
  // It has not heard of the last layers, nor of the commit.
  void sink_reading_committed() {
    sink_reading();
    victim_.kill(SIGSTOP);
    compute(kLayers);
    finish();
  }
  // It has all, and we have not listened.
  void sink_joined() {
    const uint64_t all = peer_layout().blocks_for(kTokens) * peer_layout().block_bytes();
    sink_reading();
    compute(kLayers);
    ASSERT_TRUE(
        ask_until(victim_, [all](const Held& h) { return h.bytes_read >= all && h.reads == 0; }));
    finish();
    EXPECT_EQ(hear(victim_, "joined", false), "joined 1 0");
  }
  void sink_draining() {
    sink_reserved();
    begin();
    tell("drain 1");
    hear(victim_, "will drain");
    compute(kLayers);
    // What it copies itself ends with it.
    EXPECT_EQ(hear(victim_, "draining") == "draining 0", tls() != std::string("tcp"));
  }

  // --- after the strike ---
  void strike() {
    struck_ = Clock::now();
    victim_.kill(strike_.strike == Strike::kKilled ? SIGKILL : SIGSTOP);
    if (credit_after_strike_) reserve();  // nobody has told us yet
  }
  unsigned fate() {
    const auto has = [](const auto& events) { return events.contains(1); };
    if (has(worker_.joined_)) return kJoined;
    if (has(worker_.sink_failed_)) return has(worker_.released_) ? kSinkFailed : kQuarantined;
    if (has(worker_.source_released_)) return kReleased;
    if (has(worker_.source_failed_)) return kSourceFailed;
    if (has(worker_.sink_lost_)) return kSinkLost;
    return source().num_handoffs() + source().num_early_credits() > 0 ? kKept : kForgotten;
  }
  void await_fate() {
    const unsigned right = strike_.strike == Strike::kKilled    ? state_.killed
                           : strike_.strike == Strike::kStopped ? state_.stopped
                                                                : state_.silent;
    EXPECT_TRUE(until([&] { return (fate() & right) != 0; })) << "fate " << fate();
    if (strike_.strike == Strike::kKilled) {
      EXPECT_TRUE(until([&] { return !worker_.driver().peer_up(kVictim); }));
    } else if (strike_.strike == Strike::kSilent) {
      EXPECT_TRUE(until([&] { return !worker_.lost_.empty(); }));
    } else {
      go_on_for(struck_ + lease_ * 3 / 2 - Clock::now());
    }
    EXPECT_TRUE((fate() & right) != 0) << "fate " << fate() << " in the end";
    if (fate() == kJoined) {
      EXPECT_EQ(worker_.wrong_vectors(0, kTokens, 1), 0u);
    }
  }

  // The same request with the other worker, in the same blocks.
  void recover() {
    if ((fate() & (kJoined | kReleased)) != 0) return;
    if (state_.victim == Side::kSource) {
      other_.say(fmt::format("begin 1 {} 2", kTokens));
      reserve(kOther, 1, 2);
      other_.say(fmt::format("go_on 1 {}", kTokens));
      ASSERT_TRUE(until([&] { return worker_.joined_.contains(1); }));
      EXPECT_EQ(worker_.wrong_vectors(0, kTokens, 1), 0u);
      EXPECT_EQ(hear(other_, "released"), "released 1");
      return;
    }
    const unsigned from = fate();
    other_.say(fmt::format("sink 1 {} 2", kTokens));
    if ((from & (kKept | kSinkLost)) != 0) {
      ASSERT_TRUE(worker_.driver().retarget(test_key(1), Generation{2}, kOther, Clock::now()));
      compute(kLayers, 2);
      finish(2);
    } else {
      worker_.hand_over(test_key(1, 2), kOther, 0, kTokens, 1, seconds(60));
    }
    EXPECT_EQ(hear(other_, "joined"), "joined 1 0");
    ASSERT_TRUE(until([&] { return worker_.source_released_.contains(1); }));
  }

  // Another request, in the same blocks again: late reads find its KV.
  void hand_over(Peer& peer, WorkerId id, uint64_t request) {
    if (state_.victim == Side::kSource) {
      reserve(id, request);
      peer.say(fmt::format("source {} {} 0", request, kTokens));
      ASSERT_TRUE(until([&] { return worker_.joined_.contains(request); }));
      EXPECT_EQ(worker_.wrong_vectors(0, kTokens, request), 0u);
      EXPECT_EQ(hear(peer, "released"), fmt::format("released {}", request));
    } else {
      peer.say(fmt::format("sink {} {}", request, kTokens));
      worker_.hand_over(test_key(request), id, 0, kTokens, request, seconds(60));
      EXPECT_EQ(hear(peer, "joined"), fmt::format("joined {} 0", request));
      ASSERT_TRUE(until([&] { return worker_.source_released_.contains(request); }));
    }
  }

  // Nobody believes what it has still to say.
  void wake() {
    const uint64_t ends = sink().stats().joined + source().stats().released;
    victim_.kill(SIGCONT);
    if (state_.victim == Side::kSource) tell("go_on 1 {}");
    victim_.say("on");  // only a draining one waits for it
    go_on_for(milliseconds(200));
    EXPECT_EQ(sink().stats().joined + source().stats().released, ends);
    victim_.say("let_go");
    EXPECT_TRUE(ask_until(victim_, [](const Held& h) { return h.nothing(); }));
  }
  void use_the_victim_again() {
    if (!worker_.driver().peer_up(kVictim)) {
      victim_.say("pair " + to_hex(encode(worker_.driver().hello())));
      ASSERT_EQ(hear(victim_, "paired"), "paired");
      meet(hellos_[0]);
    }
    hand_over(victim_, kVictim, 3);
  }

  const State& state_;
  const StrikeInfo& strike_;
  const Duration lease_, peer_timeout_;
  RealWorker worker_;
  Peer victim_, other_;
  std::vector<std::string> hellos_;
  uint32_t layer_ = 0;  // our source's
  bool finished_ = false;
  bool credit_after_strike_ = false;
  TimePoint struck_;
};

const std::vector<State> kStates = {
    // The survivor is the sink.
    {Side::kSource, "NotBegun", &UcxFaultMatrix::source_not_begun, kSinkFailed, kSinkFailed,
     kSinkFailed},
    {Side::kSource, "Computing", &UcxFaultMatrix::source_computing, kSinkFailed, kSinkFailed,
     kSinkFailed},
    {Side::kSource, "Streaming", &UcxFaultMatrix::source_streaming, kSinkFailed,
     kSinkFailed | kQuarantined, kSinkFailed},
    {Side::kSource, "Parked", &UcxFaultMatrix::source_parked, kSinkFailed, kSinkFailed,
     kSinkFailed},
    {Side::kSource, "Committed", &UcxFaultMatrix::source_committed, kSinkFailed | kJoined,
     kSinkFailed | kQuarantined | kJoined, kSinkFailed | kJoined},
    {Side::kSource, "ReadByADrainingSink", &UcxFaultMatrix::source_read_by_a_draining_sink,
     kSinkFailed, kSinkFailed | kQuarantined, kSinkFailed},
    // The survivor is the source.
    {Side::kSink, "Reserved", &UcxFaultMatrix::sink_reserved, kForgotten, kForgotten, kForgotten},
    {Side::kSink, "NotAskedWhileComputing", &UcxFaultMatrix::sink_not_yet_asked_computing,
     kSinkLost, kKept, kSinkLost},
    {Side::kSink, "NotAskedWhileParked", &UcxFaultMatrix::sink_not_yet_asked_parked, kSinkLost,
     kKept, kSinkLost},
    {Side::kSink, "Reading", &UcxFaultMatrix::sink_reading, kSinkLost, kSinkLost, kSinkLost},
    {Side::kSink, "ReadingCommitted", &UcxFaultMatrix::sink_reading_committed, kSinkLost,
     kSourceFailed, kSinkLost},
    {Side::kSink, "Joined", &UcxFaultMatrix::sink_joined, kReleased | kSinkLost, kReleased,
     kReleased},
    {Side::kSink, "Draining", &UcxFaultMatrix::sink_draining, kSinkLost, kSinkLost, kSinkLost},
};

TEST_P(UcxFaultMatrix, TheOtherSideComesOutOfIt) {
  ASSERT_NO_FATAL_FAILURE((this->*state_.bring_about)());
  const bool killed = strike_.strike == Strike::kKilled;
  strike();
  await_fate();
  const bool quarantined = fate() == kQuarantined;
  if (quarantined) {  // until the reads end
    wake();
    ASSERT_TRUE(until([&] { return fate() == kSinkFailed; }));
  }
  ASSERT_NO_FATAL_FAILURE(recover());
  expect_nothing_held();
  ASSERT_NO_FATAL_FAILURE(hand_over(other_, kOther, 2));
  expect_nothing_held();
  if (killed) return;
  if (!quarantined) wake();
  if (state_.victim == Side::kSource) {
    EXPECT_EQ(worker_.wrong_vectors(0, kTokens, 2), 0u);
  }
  expect_nothing_held();
  ASSERT_NO_FATAL_FAILURE(use_the_victim_again());
  expect_nothing_held();
}

std::string name_of(const ::testing::TestParamInfo<Cell>& info) {
  const auto& [tls, state, strike] = info.param;
  return fmt::format("{}_{}{}_{}", tls, kStates[state].victim == Side::kSource ? "Source" : "Sink",
                     kStates[state].name, kStrikes[strike].name);
}

INSTANTIATE_TEST_SUITE_P(Cells, UcxFaultMatrix,
                         ::testing::Combine(::testing::Values("shm", "tcp"),
                                            ::testing::Range<size_t>(0, 13),
                                            ::testing::Range<size_t>(0, std::size(kStrikes))),
                         name_of);

}  // namespace
}  // namespace baton::kvtransfer
