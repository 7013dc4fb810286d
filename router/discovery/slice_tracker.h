#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"
#include "router/discovery/slice_set.h"

namespace baton::router {

// What to ask the API server next about a Service's slices, and what is known of them: a list, then
// watches that go on from what was seen last, and a list again when the server no longer has that.
// Pure: (event, now) -> state; whoever drives it does the asking. What fails changes no address.
//
// An error says why the asking must end, and is counted: each in a row makes the pause before the
// next try longer, until a watch lives for a while. kAborted is everyday, and nothing to tell of.
class SliceTracker {
 public:
  struct Ask {
    bool watch = false;      // else a list
    std::string target;      // path and query
    seconds watch_for = {};  // after which the server ends it
    TimePoint at;            // not before
  };
  static constexpr Duration kFirstPause = milliseconds(500);
  static constexpr Duration kLongestPause = seconds(30);
  static constexpr seconds kShortestWatch{180}, kLongestWatch{300};
  static constexpr Duration kAWhile = seconds(1);

  explicit SliceTracker(ServicePlace place) : place_(std::move(place)) {}

  // `random` in [0, 1) spreads pauses and ends of watches, so that routers do not ask at once.
  Ask next(TimePoint now, double random);

  // What comes of it: the whole list; or that the watch began, and its lines.
  status on_list(std::string_view body, TimePoint now);
  void on_watching(TimePoint now) { watching_since_ = now; }
  status on_line(std::string_view line, TimePoint now);
  // A watch that ended in order: the server does that by its clock.
  void on_watch_end(TimePoint now);
  // The answer had this status and is of no use.
  Error on_status(unsigned http_status, TimePoint now);
  // No answer, or one that broke off.
  Error on_lost(std::string why, TimePoint now);

  // A change since it was last asked: all that is known now.
  std::optional<Endpoints> take_changed();
  const ServicePlace& place() const { return place_; }

 private:
  std::string target() const;
  bool lived(TimePoint now) const;
  void fail(TimePoint now);
  Error expire(std::string why, TimePoint now);

  const ServicePlace place_;
  SliceSet slices_;
  std::string version_;    // empty: to be listed
  uint32_t failures_ = 0;  // in a row
  bool no_pause_ = false;  // before a watch that follows its list
  std::optional<TimePoint> watching_since_;
  bool listed_ = false, changed_ = false;
};

}  // namespace baton::router
