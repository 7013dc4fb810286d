#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "sim/event.h"

namespace baton::sim {

// Virtual time, and what is to happen in it; of one moment, in the order in which it was put in.
// Allocates as more becomes due than ever before.
class Timeline {
 public:
  TimePoint now() const { return now_; }
  void at(TimePoint when, Event event) {
    heap_.push_back({when < now_ ? now_ : when, next_++, keep(std::move(event))});
    std::ranges::push_heap(heap_, later);
  }
  void after(Duration delay, Event event) { at(now_ + delay, std::move(event)); }

  TimePoint next() const { return heap_.empty() ? TimePoint::max() : heap_.front().when; }
  void advance(TimePoint now) { now_ = now > now_ ? now : now_; }
  // The next event that is due, if there is one.
  bool run_one() {
    if (next() > now_) return false;
    std::ranges::pop_heap(heap_, later);
    const uint32_t place = heap_.back().place;
    heap_.pop_back();
    Event event = std::move(events_[place]);
    free_.push_back(place);
    event();
    return true;
  }

 private:
  struct Entry {
    TimePoint when;
    uint64_t order = 0;
    uint32_t place = 0;  // in events_
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.when != b.when ? a.when > b.when : a.order > b.order;
  }

  uint32_t keep(Event&& event) {
    if (free_.empty()) {
      events_.push_back(std::move(event));
      return static_cast<uint32_t>(events_.size() - 1);
    }
    const uint32_t place = free_.back();
    free_.pop_back();
    events_[place] = std::move(event);
    return place;
  }

  TimePoint now_{};
  uint64_t next_ = 0;
  std::vector<Entry> heap_;     // the next one first
  std::deque<Event> events_;    // of the entries
  std::vector<uint32_t> free_;  // places without an event
};

}  // namespace baton::sim
