#include "kvtransfer/paced_transport.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <map>
#include <random>

#include "common/latency/link_model.h"
#include "kvtransfer/loopback_transport.h"

namespace baton::kvtransfer {
namespace {

using Kind = TransportEvent::Kind;

constexpr size_t kMemory = 1 << 20;
// A byte of a get stands for 100, of which a second moves 100 M: a get of 1000 bytes takes 1.2 ms.
const PacedLink kLink{{.latency = 200e-6, .byte = 1e-8}, 100};

Duration alone(uint64_t bytes, uint32_t others = 0, uint64_t theirs = 0) {
  return latency::transfer_time(kLink.costs, bytes * 100,
                                {.transfers = others, .bytes = theirs * 100});
}

class PacedTransportTest : public ::testing::Test {
 protected:
  PacedTransportTest() {
    hub_->advance(now_);
    for (auto& owner : owners_) {
      owner = hub_->make_transport("h");
      const auto memory = *owner->allocate(kMemory, Sharing::kNone);
      std::ranges::fill(memory, std::byte{7});
    }
    reader_ = *make_paced_transport(hub_->make_transport("h"), kLink, [this] { return now_; });
    memory_ = *reader_->allocate(kMemory, Sharing::kNone);
    for (size_t i = 0; i < owners_.size(); ++i) {
      peers_.push_back(*reader_->connect(owners_[i]->endpoint(), "owner"));
      EXPECT_TRUE(owners_[i]->connect(reader_->endpoint(), "reader"));
    }
  }

  // Never done at once.
  void get(size_t owner, uint64_t bytes, uint64_t cookie) {
    const GetOp op{.remote_offset = 0, .local = memory_.data(), .bytes = bytes};
    const auto done = reader_->get(peers_[owner], {&op, 1}, cookie, Answer::kAtOnce);
    ASSERT_TRUE(done);
    EXPECT_FALSE(*done);
  }
  void to(TimePoint now) {
    now_ = now;
    hub_->advance(now);
    while (reader_->poll(events_)) {
    }
  }
  // What ended between the last call and this time.
  std::vector<uint64_t> done_by(TimePoint now) {
    events_.clear();
    to(now);
    std::vector<uint64_t> cookies;
    for (const TransportEvent& e : events_) {
      EXPECT_EQ(e.kind, Kind::kGetDone);
      cookies.push_back(e.cookie);
    }
    return cookies;
  }

  using Cookies = std::vector<uint64_t>;
  TimePoint now_ = TimePoint(seconds(1000));
  const TimePoint begin_ = now_;
  std::unique_ptr<LoopbackHub> hub_ = make_loopback_hub();
  std::array<std::unique_ptr<Transport>, 3> owners_;
  std::unique_ptr<Transport> reader_;
  std::span<std::byte> memory_;
  std::vector<PeerId> peers_;
  std::vector<TransportEvent> events_;
};

constexpr Duration kTick{2};  // rounding

TEST_F(PacedTransportTest, AGetTakesWhatTheLinkModelSays) {
  get(0, 1000, 1);
  EXPECT_EQ(done_by(begin_ + alone(1000) - kTick), Cookies{});
  EXPECT_EQ(done_by(begin_ + alone(1000) + kTick), Cookies{1});
  EXPECT_EQ(memory_[999], std::byte{7});
  EXPECT_EQ(memory_[1000], std::byte{});
}

TEST_F(PacedTransportTest, PeersShareTheLink) {
  for (size_t i = 0; i < 3; ++i) get(i, 1000 * (i + 1), i);
  // The shortest moves beside two others, of which each moves as much meanwhile.
  EXPECT_EQ(done_by(begin_ + alone(1000, 2, 5000) - kTick), Cookies{});
  EXPECT_EQ(done_by(begin_ + alone(1000, 2, 5000) + kTick), Cookies{0});
  EXPECT_EQ(done_by(begin_ + alone(2000, 2, 3000) - kTick), Cookies{});
  EXPECT_EQ(done_by(begin_ + alone(3000, 2, 3000) + kTick), (Cookies{1, 2}));
}

TEST_F(PacedTransportTest, GetsOfOnePeerHaveItsShare) {
  for (uint64_t cookie = 0; cookie < 3; ++cookie) get(0, 1000, cookie);
  get(1, 2000, 9);
  // Two shares: the three have moved 2000 when the other one has.
  EXPECT_EQ(done_by(begin_ + alone(2000, 1, 3000) - kTick), Cookies{});
  EXPECT_EQ(done_by(begin_ + alone(2000, 1, 3000) + kTick), Cookies{9});
  EXPECT_EQ(done_by(begin_ + alone(5000) + kTick), (Cookies{0, 1, 2}));
}

TEST_F(PacedTransportTest, WhatComesLaterThanTheLinkSaysEndsWhenItComes) {
  hub_->set_faults({.get_delay = seconds(10)});
  get(0, 1000, 1);
  EXPECT_EQ(done_by(begin_ + alone(1000) + kTick), Cookies{});
  EXPECT_EQ(done_by(begin_ + seconds(11)), Cookies{1});
  EXPECT_EQ(memory_[999], std::byte{7});
}

TEST_F(PacedTransportTest, AFailureIsToldAtOnce) {
  hub_->set_faults({.fail_get = 1});
  get(0, 1000, 1);
  to(begin_);
  ASSERT_EQ(events_.size(), 1u);
  EXPECT_EQ(events_[0].kind, Kind::kGetFailed);
  EXPECT_EQ(done_by(begin_ + seconds(1)), Cookies{});
}

TEST_F(PacedTransportTest, WhatIsGivenUpEndsAndLeavesItsShare) {
  get(0, 1000, 1);
  get(1, 1000, 2);
  reader_->give_up(peers_[0], 1);
  to(begin_);
  ASSERT_EQ(events_.size(), 1u);
  EXPECT_EQ(events_[0].kind, Kind::kGetFailed);
  EXPECT_EQ(events_[0].cookie, 1u);
  EXPECT_EQ(done_by(begin_ + alone(1000) + kTick), Cookies{2});
}

TEST_F(PacedTransportTest, GetsEndBeforeTheirPeerIsClosed) {
  get(0, 1000, 1);
  get(1, 1000, 2);
  to(begin_ + alone(1000) / 2);
  get(0, 1000, 3);
  reader_->close(peers_[0]);
  to(now_);
  ASSERT_EQ(events_.size(), 3u);
  EXPECT_EQ(events_[0].kind, Kind::kGetFailed);
  EXPECT_EQ(events_[1].kind, Kind::kGetFailed);
  EXPECT_EQ(events_[2].kind, Kind::kClosed);
  EXPECT_EQ(done_by(begin_ + seconds(1)), Cookies{2});
}

TEST_F(PacedTransportTest, NothingIsMapped) {
  hub_->set_faults({.mapped = true});
  EXPECT_TRUE(reader_->mapped(peers_[0]).empty());
}

TEST_F(PacedTransportTest, EachGetEndsOnceWhateverHappens) {
  hub_->set_faults({.fail_get = 0.1, .get_delay = milliseconds(5)});
  std::mt19937_64 random(3);
  struct Open {
    TimePoint begun;
    uint64_t bytes = 0;
    bool given_up = false;  // it may be told when `inner` tells it
  };
  std::map<uint64_t, Open> open;  // by cookie
  uint64_t next = 1, done = 0, failed = 0;
  const auto take_events = [&] {
    for (const TransportEvent& e : std::exchange(events_, {})) {
      const auto it = open.find(e.cookie);
      ASSERT_NE(it, open.end()) << "twice";
      if (e.kind == Kind::kGetDone) {
        if (!it->second.given_up) {
          EXPECT_GE(now_ - it->second.begun + kTick, alone(it->second.bytes));
        }
        ++done;
      } else {
        ++failed;
      }
      open.erase(it);
    }
  };
  for (int i = 0; i < 5000; ++i) {
    to(now_ + microseconds(random() % 2000));
    take_events();
    const size_t owner = random() % 3;
    const uint64_t bytes = 1 + random() % 3000;
    open[next] = {now_, bytes};
    get(owner, bytes, next++);
    if (random() % 8 != 0) continue;
    const uint64_t cookie = next - 1 - random() % 3;
    reader_->give_up(peers_[owner], cookie);
    if (open.contains(cookie)) open[cookie].given_up = true;  // or it was of another owner
  }
  to(now_ + seconds(100));
  take_events();
  EXPECT_TRUE(open.empty());
  EXPECT_GT(done, 1000u);
  EXPECT_GT(failed, 100u);
}

// What waits for the descriptor hears of the end without looking.
TEST(PacedTransport, WakesWhoWaits) {
  const auto hub = make_loopback_hub();
  const auto owner = hub->make_transport("h");
  ASSERT_TRUE(owner->allocate(kMemory, Sharing::kNone));
  const auto reader = *make_paced_transport(hub->make_transport("h"), kLink);
  const auto memory = *reader->allocate(kMemory, Sharing::kNone);
  const PeerId peer = *reader->connect(owner->endpoint(), "owner");
  for (uint64_t cookie = 1; cookie <= 3; ++cookie) {
    const GetOp op{.remote_offset = 0, .local = memory.data(), .bytes = 1000 * cookie};
    const TimePoint begun = Clock::now();
    ASSERT_FALSE(*reader->get(peer, {&op, 1}, cookie, Answer::kAtOnce));
    std::vector<TransportEvent> events;
    int waits = 0;
    while (events.empty()) {
      if (reader->poll(events) || !events.empty() || !*reader->arm()) continue;
      pollfd fd{.fd = reader->event_fd(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(::poll(&fd, 1, 10'000), 1);
      ++waits;
    }
    EXPECT_EQ(events[0].cookie, cookie);
    EXPECT_GE(Clock::now() - begun, alone(1000 * cookie));
    EXPECT_LE(waits, 3);  // it begins to flow, and it ends
  }
}

}  // namespace
}  // namespace baton::kvtransfer
