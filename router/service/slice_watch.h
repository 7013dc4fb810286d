#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "router/discovery/service_place.h"
#include "router/service/kubernetes_api.h"

namespace baton::router {

// Follows the EndpointSlices of one Service: a list, then watches, over TLS, for as long as it
// lives. On the thread of the io_context; files are read there, nothing else blocks.
class SliceWatch {
 public:
  // host:port of each worker, at most SliceSet::kMostAddresses.
  using Found = std::function<void(const std::vector<std::string>& addresses)>;

  // `found` hears of the first list and of each change after it, never before this returns. What
  // fails is logged, once, and changes nothing; it is tried again, after a pause that grows to half
  // a minute.
  SliceWatch(boost::asio::io_context& io, const ServicePlace& place, const KubernetesApi& api,
             Found found);
  ~SliceWatch();  // `found` is not called any more
  SliceWatch(const SliceWatch&) = delete;
  SliceWatch& operator=(const SliceWatch&) = delete;

  // Whether what the API server said last could be used.
  bool up() const;
  // Endpoints that are not among the addresses; the log says why.
  size_t left_out() const;

 private:
  class Run;
  std::shared_ptr<Run> run_;
};

}  // namespace baton::router
