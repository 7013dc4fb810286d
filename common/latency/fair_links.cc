#include "common/latency/fair_links.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace baton::latency {
namespace {

// Less than this of a byte is nothing: what rounding leaves.
constexpr double kNothing = 1e-3;

}  // namespace

LinkId FairLinks::add_link(double bytes_per_second) {
  assert(bytes_per_second > 0);
  links_.push_back({.capacity = bytes_per_second});
  return LinkId(static_cast<uint32_t>(links_.size() - 1));
}

FlowId FairLinks::start(GroupId group, std::span<const LinkId> path, double bytes) {
  assert(bytes > 0 && !path.empty());
  Group& g = groups_[group];
  if (g.flows.empty()) g.path.assign(path.begin(), path.end());
  const FlowId id(next_flow_++);
  g.flows.push_back({id, bytes});
  ++num_flows_;
  share();
  return id;
}

void FairLinks::cancel(FlowId flow) {
  for (auto it = groups_.begin(); it != groups_.end(); ++it) {
    const size_t gone =
        std::erase_if(it->second.flows, [flow](const Flow& f) { return f.id == flow; });
    if (gone == 0) continue;
    num_flows_ -= gone;
    if (it->second.flows.empty()) groups_.erase(it);
    return share();
  }
}

void FairLinks::cancel_group(GroupId group) {
  const auto it = groups_.find(group);
  if (it == groups_.end()) return;
  num_flows_ -= it->second.flows.size();
  groups_.erase(it);
  share();
}

void FairLinks::advance(TimePoint now, std::vector<FlowId>& ended) {
  assert(now >= now_ && now <= next_end_);
  const double seconds = to_seconds(now - now_);
  const bool ends = now == next_end_;
  now_ = now;
  const size_t before = ended.size();
  for (auto it = groups_.begin(); it != groups_.end();) {
    Group& g = it->second;
    const double most = g.rate * seconds / static_cast<double>(g.flows.size());
    for (Flow& f : g.flows) {
      const double bytes = std::min(most, f.left);
      f.left -= bytes;
      for (const LinkId l : g.path) links_[l.value].moved += bytes;
      if (!ends || f.left > kNothing) continue;
      for (const LinkId l : g.path) links_[l.value].moved += f.left;
      ended.push_back(f.id);
    }
    if (ends) std::erase_if(g.flows, [](const Flow& f) { return f.left <= kNothing; });
    it = g.flows.empty() ? groups_.erase(it) : std::next(it);
  }
  std::sort(ended.begin() + static_cast<long>(before), ended.end());
  num_flows_ -= ended.size() - before;
  if (ends) share();
}

// All groups' rates grow together; where a link is full, those that cross it stay.
void FairLinks::share() {
  for (Link& l : links_) {
    l.free = l.capacity;
    l.unfixed = 0;
  }
  size_t unfixed = groups_.size();
  for (auto& [id, g] : groups_) {
    g.fixed = false;
    for (const LinkId l : g.path) ++links_[l.value].unfixed;
  }
  while (unfixed > 0) {
    double level = std::numeric_limits<double>::infinity();
    for (const Link& l : links_) {
      if (l.unfixed > 0) level = std::min(level, l.free / l.unfixed);
    }
    for (auto& [id, g] : groups_) {
      if (g.fixed) continue;
      const bool full = std::ranges::any_of(g.path, [&](LinkId id) {
        const Link& l = links_[id.value];
        return l.free / l.unfixed <= level * (1 + 1e-12);
      });
      if (!full) continue;
      g.fixed = true;
      g.rate = level;
      --unfixed;
    }
    take_fixed_off();
  }
  double soonest = std::numeric_limits<double>::infinity();
  for (const auto& [id, g] : groups_) {
    for (const Flow& f : g.flows) {
      soonest = std::min(soonest, f.left * static_cast<double>(g.flows.size()) / g.rate);
    }
  }
  constexpr double kMostSeconds = 1e6;
  next_end_ =
      num_flows_ == 0
          ? TimePoint::max()
          : now_ + Duration(static_cast<int64_t>(std::ceil(std::min(soonest, kMostSeconds) * 1e9)));
}

// What is left of the links for groups whose rate still grows.
void FairLinks::take_fixed_off() {
  for (Link& l : links_) {
    l.free = l.capacity;
    l.unfixed = 0;
  }
  for (const auto& [id, g] : groups_) {
    for (const LinkId l : g.path) {
      if (g.fixed) {
        links_[l.value].free -= g.rate;
      } else {
        ++links_[l.value].unfixed;
      }
    }
  }
  for (Link& l : links_) l.free = std::max(l.free, 0.0);
}

double FairLinks::rate(GroupId group) const {
  const auto it = groups_.find(group);
  return it == groups_.end() ? 0 : it->second.rate;
}

double FairLinks::load(LinkId link) const {
  double sum = 0;
  for (const auto& [id, g] : groups_) {
    for (const LinkId l : g.path) sum += l == link ? g.rate : 0;
  }
  return sum;
}

}  // namespace baton::latency
