#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"

namespace baton::latency {

using LinkId = StrongId<struct LinkIdTag, uint32_t>;
using FlowId = StrongId<struct FlowIdTag, uint64_t>;  // counted up, never used twice
using GroupId = StrongId<struct GroupIdTag, uint64_t>;

// Links of a capacity that flows share: max-min fairness among groups (progressive filling;
// Bertsekas and Gallager, Data Networks, 6.5.2), and what a group gets is shared equally by its
// flows. A group is a connection; all its flows cross the same links. Pure: fluid, without packets,
// latency or clock. Time never goes back.
class FairLinks {
 public:
  LinkId add_link(double bytes_per_second);  // above 0

  // From `now` on. `bytes` above 0. Before it, advance() to `now`.
  FlowId start(GroupId group, std::span<const LinkId> path, double bytes);
  void cancel(FlowId flow);  // unknown ones are ignored
  void cancel_group(GroupId group);

  // When the next flow ends; TimePoint::max(): none does. Rounded up to a whole nanosecond.
  TimePoint next_end() const { return next_end_; }
  // To `now`, at most next_end(). Flows that have ended are appended, in the order of their start.
  void advance(TimePoint now, std::vector<FlowId>& ended);

  TimePoint now() const { return now_; }
  size_t num_flows() const { return num_flows_; }
  double rate(GroupId group) const;  // bytes a second of all its flows
  double load(LinkId link) const;    // bytes a second that cross it
  double capacity(LinkId link) const { return links_[link.value].capacity; }
  double moved_bytes(LinkId link) const { return links_[link.value].moved; }

 private:
  struct Link {
    double capacity = 0;
    double moved = 0;
    // While rates are computed:
    double free = 0;
    uint32_t unfixed = 0;
  };
  struct Flow {
    FlowId id;
    double left = 0;  // bytes
  };
  struct Group {
    std::vector<LinkId> path;
    std::vector<Flow> flows;
    double rate = 0;
    bool fixed = false;
  };

  void share();
  void take_fixed_off();

  std::vector<Link> links_;
  std::map<GroupId, Group> groups_;  // those with flows
  size_t num_flows_ = 0;
  uint64_t next_flow_ = 1;
  TimePoint now_{};
  TimePoint next_end_ = TimePoint::max();
};

}  // namespace baton::latency
