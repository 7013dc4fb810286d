#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "common/base/clock.h"

namespace baton::sim {

// Virtual time, and what is to happen in it; of one moment, in the order in which it was put in.
class Timeline {
 public:
  using Event = std::function<void()>;

  TimePoint now() const { return now_; }
  void at(TimePoint when, Event event) {
    heap_.push_back({when < now_ ? now_ : when, next_++, std::move(event)});
    std::ranges::push_heap(heap_, later);
  }
  void after(Duration delay, Event event) { at(now_ + delay, std::move(event)); }

  TimePoint next() const { return heap_.empty() ? TimePoint::max() : heap_.front().when; }
  void advance(TimePoint now) { now_ = now > now_ ? now : now_; }
  // The next event that is due, if there is one.
  bool run_one() {
    if (next() > now_) return false;
    std::ranges::pop_heap(heap_, later);
    const Event event = std::move(heap_.back().event);
    heap_.pop_back();
    event();
    return true;
  }

 private:
  struct Entry {
    TimePoint when;
    uint64_t order = 0;
    Event event;
  };
  static bool later(const Entry& a, const Entry& b) {
    return std::pair(a.when, a.order) > std::pair(b.when, b.order);
  }

  TimePoint now_{};
  uint64_t next_ = 0;
  std::vector<Entry> heap_;  // the next one first
};

}  // namespace baton::sim
