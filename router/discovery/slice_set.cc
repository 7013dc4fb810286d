#include "router/discovery/slice_set.h"

#include <set>
#include <utility>

namespace baton::router {

void SliceSet::put(EndpointSlice slice) {
  if (slices_.size() >= kMostSlices && !slices_.contains(slice.name)) {
    beyond_.add(slice.addresses.size() + slice.left_out.endpoints, "there are over 1024 slices");
    return;
  }
  std::string name = slice.name;
  slices_.insert_or_assign(std::move(name), std::move(slice));
}

void SliceSet::clear() {
  slices_.clear();
  beyond_ = {};
}

Endpoints SliceSet::endpoints() const {
  Endpoints all{.addresses = {}, .left_out = beyond_};
  std::set<std::string> v4, v6;
  for (const auto& [name, slice] : slices_) {
    (slice.is_v6 ? v6 : v4).insert(slice.addresses.begin(), slice.addresses.end());
    all.left_out.add(slice.left_out.endpoints, slice.left_out.why);
  }
  const auto& of_one_family = v4.empty() ? v6 : v4;
  all.addresses.assign(of_one_family.begin(), of_one_family.end());
  if (all.addresses.size() > kMostAddresses) {
    all.left_out.add(all.addresses.size() - kMostAddresses, "there are over 1024 addresses");
    all.addresses.resize(kMostAddresses);
  }
  return all;
}

}  // namespace baton::router
