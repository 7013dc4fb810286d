#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "router/placement/placement.h"

namespace baton::cli {

// How a router chooses workers and what it promises, as flags of `router` and `up`.
struct PlacementSettings {
  std::vector<std::string> slo_class;
  std::string default_slo_class;
  std::string policy = "goodput";
  bool admission = true;
  uint32_t local_prefill_tokens = 512;
};

void add_placement_options(Options& options, PlacementSettings& s);

struct PlacementConfig {
  router::PlacementOptions placement;  // with the classes
  router::SloClasses classes;
};
// Errors name the flag.
result<PlacementConfig> make_placement(const PlacementSettings& s);

// What hands them on to a router process.
std::vector<std::string> placement_args(const PlacementSettings& s);

}  // namespace baton::cli
