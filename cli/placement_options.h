#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "router/placement/placement.h"
#include "router/roles/role_controller.h"

namespace baton::cli {

// How a router chooses workers and what it promises, as flags of `router` and `up`.
struct PlacementSettings {
  std::vector<std::string> slo_class;
  std::string default_slo_class;
  std::string policy = "goodput";
  bool admission = true;
  uint32_t local_prefill_tokens = 512;
  bool move_roles = true;
  uint32_t min_prefill = 1, min_decode = 1, min_mixed = 0;
};

// All policies, for help texts.
std::string policy_names();

void add_placement_options(Options& options, PlacementSettings& s);

struct PlacementConfig {
  router::PlacementOptions placement;  // with the classes
  router::SloClasses classes;
  std::optional<router::RoleOptions> roles;
};
// Errors name the flag.
result<PlacementConfig> make_placement(const PlacementSettings& s);

// What hands them on to a router process.
std::vector<std::string> placement_args(const PlacementSettings& s);

}  // namespace baton::cli
