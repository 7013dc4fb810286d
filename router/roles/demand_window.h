#pragma once

#include <array>
#include <cstdint>

#include "common/base/clock.h"
#include "router/placement/slo.h"

namespace baton::router {

// What came to a router of late, by the second. Pure; O(1) a word, allocates nothing.
class DemandWindow {
 public:
  static constexpr size_t kMostSeconds = 60;

  // `window` is from 1 to 60 s.
  explicit DemandWindow(Duration window);

  // A request; `prompt_seconds`: that its prompt takes a prefill worker.
  void arrived(double prompt_seconds, double prompt_tokens, const SloTarget& target, TimePoint now);
  void refused(TimePoint now);                     // one of these, for its targets
  void delivered(uint32_t tokens, TimePoint now);  // of any request

  struct Rates {
    double requests = 0;        // a second
    double prompt_seconds = 0;  // a second
    double tokens = 0;          // delivered, a second; of the last 5 s: there are many of them
    double admitted = 1;        // of those that came, by count; 1 if none came
    // Of a request, on average; of targets, of those that have one; 0: none has.
    double prompt_tokens = 0;
    double ttft = 0, tpot = 0;
    // E[s²] / E[s] of prompts' seconds s, which is what waiting behind them grows with; 0: none
    // came.
    double prompt_spread = 0;
  };
  // Of the whole seconds of the window; of what there was so far, while it is young.
  Rates rates(TimePoint now);

 private:
  struct Second {
    double prompt_seconds = 0, squares = 0, prompt_tokens = 0, ttft = 0, tpot = 0;
    uint32_t arrived = 0, with_ttft = 0, with_tpot = 0, refused = 0;
    uint64_t tokens = 0;
  };
  Second& at(TimePoint now);

  const int64_t length_;                         // seconds
  std::array<Second, kMostSeconds + 1> ring_{};  // [second % size]
  int64_t begun_ = -1, newest_ = -1;             // seconds of the clock
};

}  // namespace baton::router
