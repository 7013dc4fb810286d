#pragma once

#include <map>
#include <set>
#include <utility>

#include "common/base/clock.h"

namespace baton::kvtransfer {

// At most one deadline a key; finds the earliest. Not thread-safe.
template <class Key>
class DeadlineQueue {
 public:
  void set(const Key& key, TimePoint when) {
    erase(key);
    by_key_.emplace(key, when);
    by_time_.emplace(when, key);
  }
  void erase(const Key& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return;
    by_time_.erase({it->second, key});
    by_key_.erase(it);
  }
  // TimePoint::max() when empty.
  TimePoint next() const { return by_time_.empty() ? TimePoint::max() : by_time_.begin()->first; }
  // Takes out one key that is due; false if none is.
  bool pop_due(TimePoint now, Key& key) {
    if (next() > now) return false;
    key = by_time_.begin()->second;
    erase(key);
    return true;
  }

 private:
  std::map<Key, TimePoint> by_key_;
  std::set<std::pair<TimePoint, Key>> by_time_;
};

}  // namespace baton::kvtransfer
