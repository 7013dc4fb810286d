#pragma once

#include <cstddef>
#include <deque>
#include <set>

#include "kvtransfer/messages.h"

namespace baton::kvtransfer {

// The last hand-offs that ended, so that what still comes for them gets the right answer. The
// oldest are forgotten: the answer is then a worse one, never a wrong one.
class RecentKeys {
 public:
  explicit RecentKeys(size_t max) : max_(max) {}
  void add(const HandoffKey& key) {
    if (max_ == 0 || !keys_.insert(key).second) return;
    order_.push_back(key);
    if (order_.size() > max_) {
      keys_.erase(order_.front());
      order_.pop_front();
    }
  }
  bool contains(const HandoffKey& key) const { return keys_.contains(key); }

 private:
  size_t max_;
  std::set<HandoffKey> keys_;
  std::deque<HandoffKey> order_;  // oldest first
};

}  // namespace baton::kvtransfer
