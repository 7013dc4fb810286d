#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"

namespace baton::router {

// The prompts that wait or are computed on one worker, as one router knows them: its own one by
// one, and of all the time that the worker said they will take. Workers compute the earliest due
// first (prefill/scheduler.h), which this foresees. Seconds are of the worker's own model. A value;
// all but the constant-time total() walk this router's own prompts there, of which there are few.
class PromptQueue {
 public:
  struct Prompt {
    RequestId id;
    TimePoint due;      // order
    TimePoint promise;  // when its first token was promised; max: it was not
    double seconds = 0;
    bool sent = false;  // not only reserved
    TimePoint sent_at;
  };

  void add(RequestId id, TimePoint due, TimePoint promise, double seconds);
  void sent(RequestId id, TimePoint now);
  // Computed, or never to be. Unknown ones are ignored.
  void remove(RequestId id);
  // What the worker says all prompts will take that it had heard of.
  void reported(double seconds, TimePoint now);

  // Until all that is there now is computed.
  double total(TimePoint now) const;
  // Until one that is wanted by then would be begun.
  double ahead_of(TimePoint due, TimePoint now) const;
  // How many of this router's own, now in time, would no longer be if `seconds` came before them.
  uint32_t made_late(TimePoint due, double seconds, TimePoint now) const;

  std::span<const Prompt> prompts() const { return prompts_; }

 private:
  // Younger than the report: the worker cannot have counted it.
  bool is_news(const Prompt& p) const;
  double sum_before(size_t end) const;

  std::vector<Prompt> prompts_;  // by due
  double own_ = 0;               // seconds of all prompts_
  double news_ = 0;              // of those that are news
  double reported_ = 0;
  TimePoint reported_at_;
};

}  // namespace baton::router
