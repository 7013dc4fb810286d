#include "router/page/recent_requests.h"

#include <utility>

namespace baton::router {

void RecentRequests::add(RecentRequest request) {
  if (requests_.size() == kMost) requests_.pop_back();
  request.number = ++added_;
  requests_.push_front(std::move(request));
}

}  // namespace baton::router
