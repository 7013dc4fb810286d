#pragma once

#include <array>
#include <string>
#include <string_view>

#include "router/page/live_state.h"
#include "router/service/cluster.h"
#include "router/service/router_metrics.h"

namespace baton::router {

// What the live page is shown. Kept of requests as they end, taken of the cluster when somebody
// asks, and then good for kFresh, however many ask. The io_context's thread.
class LiveView {
 public:
  static constexpr Duration kFresh = milliseconds(250);

  // `classes` outlives it.
  LiveView(const SloClasses& classes, TimePoint begun)
      : classes_(classes), begun_(begun), history_(begun) {}
  // These are what it shows; `metrics` tells it of requests from now on. Once, before json(). They
  // outlive its use.
  void show(const Cluster& cluster, RouterMetrics& metrics);

  RecentRequests& recent() { return recent_; }

  // The answer of /debug/state; `details` as state_json().
  const std::string& json(std::string_view version, TimePoint now, bool details);

 private:
  struct Answer {
    std::string text;
    TimePoint made;
  };
  LiveState take(std::string_view version, TimePoint now);
  std::vector<LiveWorker> workers() const;
  std::vector<LivePair> pairs(TimePoint now) const;

  const SloClasses& classes_;
  const TimePoint begun_;
  LiveHistory history_;
  RecentRequests recent_;
  const Cluster* cluster_ = nullptr;
  const RouterMetrics* metrics_ = nullptr;
  std::array<Answer, 2> answers_;  // without details, with
};

}  // namespace baton::router
