#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "router/discovery/service_place.h"

// What the Kubernetes API says of a Service's endpoints: discovery.k8s.io/v1 EndpointSlice, as a
// list and as the events of a watch. Pure.
namespace baton::router {

// Endpoints that nobody can dial by what is said of them.
struct LeftOut {
  size_t endpoints = 0;
  std::string why;  // of the last of them; names the field

  void add(size_t more, std::string_view reason) {
    if (more == 0) return;
    endpoints += more;
    why = reason;
  }
};

// host:port of each endpoint of one slice. Not those that are terminating: they take nothing new.
// Others count whether ready or not, since a worker says by itself when it can serve.
struct EndpointSlice {
  static constexpr size_t kMostEndpoints = 1000;  // as the API has it

  std::string name;
  bool is_v6 = false;
  std::vector<std::string> addresses;
  LeftOut left_out;
};

struct SliceList {
  std::string version;  // the resourceVersion that a watch goes on from
  std::vector<EndpointSlice> slices;
};

struct SliceEvent {
  enum class Kind { kChanged, kDeleted, kBookmark, kGone, kError };
  Kind kind = Kind::kError;
  std::string version;  // of what was seen last; none with kGone and kError
  EndpointSlice slice;  // with kChanged; its name alone with kDeleted
  std::string message;  // with kGone and kError
};

// kInvalidArgument names the field.
result<SliceList> parse_slice_list(std::string_view json, const ServicePlace& place);
result<SliceEvent> parse_slice_event(std::string_view line, const ServicePlace& place);

}  // namespace baton::router
