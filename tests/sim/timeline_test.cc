#include "sim/timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "sim/process.h"

namespace baton::sim {
namespace {

TEST(Timeline, RunsWhatIsDueInOrderOfTimeThenOfArrival) {
  Timeline timeline;
  std::vector<int> ran;
  timeline.after(seconds(2), [&] { ran.push_back(3); });
  timeline.after(seconds(1), [&] { ran.push_back(1); });
  timeline.after(seconds(1), [&] { ran.push_back(2); });
  EXPECT_FALSE(timeline.run_one());
  EXPECT_EQ(timeline.next(), TimePoint(seconds(1)));
  timeline.advance(TimePoint(seconds(2)));
  while (timeline.run_one()) {
  }
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(timeline.next(), TimePoint::max());
}

TEST(Timeline, KeepsTheOrderOfManyThatComeAndGo) {
  Timeline timeline;
  std::vector<std::pair<TimePoint, int>> ran, wanted;
  for (int i = 0; i < 1000; ++i) {
    const TimePoint when(milliseconds(i * 37 % 50));
    wanted.emplace_back(when, i);
    timeline.at(when, [&ran, when, i] { ran.emplace_back(when, i); });
  }
  std::ranges::stable_sort(wanted, {}, &std::pair<TimePoint, int>::first);
  for (int ms = 0; ms < 50; ++ms) {
    timeline.advance(TimePoint(milliseconds(ms)));
    while (timeline.run_one()) {
    }
  }
  EXPECT_EQ(ran, wanted);
}

// Counts those of it that live.
struct Counted {
  explicit Counted(int& living) : living(&living) { ++living; }
  Counted(Counted&& other) noexcept : living(other.living) { ++*living; }
  Counted(const Counted&) = delete;
  ~Counted() { --*living; }
  int* living;
};

TEST(Event, IsDestroyedOnceWhereverItLives) {
  int living = 0, ran = 0;
  {
    Event small = [counted = Counted(living), &ran] { ++ran; };
    Event large = [counted = Counted(living), room = std::array<char, 200>{}, &ran] {
      ran += 1 + room[7];
    };
    Event moved = std::move(small);
    moved();
    large();
    EXPECT_EQ(living, 2);
    moved = std::move(large);  // the small one ends
    EXPECT_EQ(living, 1);
    moved();
    Timeline timeline;  // ends with something left to do
    timeline.after(seconds(1), std::move(moved));
    EXPECT_EQ(living, 1);
  }
  EXPECT_EQ(living, 0);
  EXPECT_EQ(ran, 3);
}

TEST(ProcessClock, GoesAtItsOwnPaceAndBack) {
  const ProcessClock clock(TimePoint(seconds(10)), seconds(1000), 0.01);
  EXPECT_EQ(clock.local(TimePoint(seconds(10))), TimePoint(seconds(1010)));
  EXPECT_EQ(clock.local(TimePoint(seconds(110))), TimePoint(seconds(1111)));
  EXPECT_EQ(clock.local(TimePoint::max()), TimePoint::max());
  for (int64_t ns = 1; ns < 4'000'000'000'000; ns = ns * 3 + 1) {
    const TimePoint local = clock.local(TimePoint(seconds(10)) + Duration(ns));
    EXPECT_GE(clock.local(clock.true_time(local)), local) << "a timer that comes too early";
  }
}

TEST(Process, SleepsAndThenDoesWhatWaitedInOrder) {
  Timeline timeline;
  auto process = std::make_shared<Process>("p", timeline, ProcessClock());
  std::vector<int> ran;
  process->pause(seconds(1));
  process->run([&] { ran.push_back(1); });
  process->run([&] { ran.push_back(2); });
  timeline.advance(TimePoint(milliseconds(999)));
  EXPECT_FALSE(timeline.run_one());
  timeline.advance(TimePoint(seconds(1)));
  while (timeline.run_one()) {
  }
  EXPECT_EQ(ran, (std::vector<int>{1, 2}));
  process->later(seconds(1), [&] { ran.push_back(3); });
  process.reset();  // dead: nothing more happens in it
  timeline.advance(TimePoint(seconds(9)));
  while (timeline.run_one()) {
  }
  EXPECT_EQ(ran.size(), 2u);
}

}  // namespace
}  // namespace baton::sim
