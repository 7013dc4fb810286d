#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "common/base/clock.h"

namespace baton::sim {

// Virtual time, and what is to happen in it; of one moment, in the order in which it was put in.
class Timeline {
 public:
  using Event = std::function<void()>;

  TimePoint now() const { return now_; }
  void at(TimePoint when, Event event) {
    events_.emplace(std::pair(when < now_ ? now_ : when, next_++), std::move(event));
  }
  void after(Duration delay, Event event) { at(now_ + delay, std::move(event)); }

  TimePoint next() const {
    return events_.empty() ? TimePoint::max() : events_.begin()->first.first;
  }
  void advance(TimePoint now) { now_ = now > now_ ? now : now_; }
  // The next event that is due, if there is one.
  bool run_one() {
    if (next() > now_) return false;
    const Event event = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    event();
    return true;
  }

 private:
  TimePoint now_{};
  uint64_t next_ = 0;
  std::map<std::pair<TimePoint, uint64_t>, Event> events_;
};

}  // namespace baton::sim
