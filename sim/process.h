#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "sim/process_clock.h"
#include "sim/timeline.h"

namespace baton::sim {

// What every simulated process has: a name, a clock of its own, and the misfortune to be stopped
// for a while. It is dead once it is destroyed: what was to happen in it does not.
class Process : public std::enable_shared_from_this<Process> {
 public:
  Process(std::string name, Timeline& timeline, ProcessClock clock)
      : name_(std::move(name)), timeline_(timeline), clock_(clock) {}
  virtual ~Process() = default;

  const std::string& name() const { return name_; }
  bool paused() const { return paused_until_ > timeline_.now(); }
  TimePoint paused_until() const { return paused_until_; }
  void pause(Duration d) { paused_until_ = std::max(paused_until_, timeline_.now() + d); }
  TimePoint local_now() const { return clock_.local(timeline_.now()); }
  const ProcessClock& clock() const { return clock_; }

  // Now, or when it is awake again; in this order.
  template <class Callable>
  void run(Callable event) {
    if (!paused()) return event();
    later(paused_until_ - timeline_.now(), std::move(event));
  }
  template <class Callable>
  void later(Duration after, Callable event) {
    timeline_.after(after, [self = weak_from_this(), event = std::move(event)]() mutable {
      if (const auto alive = self.lock()) alive->run(std::move(event));
    });
  }

 protected:
  Timeline& timeline() { return timeline_; }

 private:
  const std::string name_;
  Timeline& timeline_;
  const ProcessClock clock_;
  TimePoint paused_until_{};
};

}  // namespace baton::sim
