#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "router/discovery/endpoint_slices.h"

namespace baton::router {

struct Endpoints {
  std::vector<std::string> addresses;  // host:port: sorted, each once
  LeftOut left_out;
};

// The slices of one Service, as last seen. Pure.
class SliceSet {
 public:
  static constexpr size_t kMostSlices = 1024;
  static constexpr size_t kMostAddresses = 1024;

  // One that is new beyond kMostSlices is left out until the next clear().
  void put(EndpointSlice slice);
  void erase(const std::string& name) { slices_.erase(name); }
  void clear();
  // At most kMostAddresses; of IPv4 alone where there is any, since those of the other family would
  // lead to the same workers.
  Endpoints endpoints() const;

 private:
  std::map<std::string, EndpointSlice> slices_;
  LeftOut beyond_;
};

}  // namespace baton::router
