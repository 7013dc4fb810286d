#include "cli/placement_options.h"

#include <fmt/format.h>

#include <random>

namespace baton::cli {

std::string policy_names() { return fmt::format("{}", fmt::join(router::kPolicyNames, ", ")); }

void add_placement_options(Options& options, PlacementSettings& s) {
  options.add("slo-class", &s.slo_class,
              "What requests may ask for: 'NAME: ttft=500ms, tpot=50ms' or 'NAME: best-effort'; "
              "once for each class");
  options.add("default-slo-class", &s.default_slo_class,
              "Class of requests that name none; empty: the one called default, or the first");
  options.add("policy", &s.policy,
              fmt::format("How workers are chosen: one of {}", policy_names()));
  options.add("admission", &s.admission,
              "Refuse at once what would miss its targets, or make others miss theirs");
  options.add("local-prefill-tokens", &s.local_prefill_tokens,
              "By goodput: a prompt with no more tokens to compute may be computed on its decode "
              "worker; 0: never");
  options.add("move-roles", &s.move_roles,
              "Change the roles of workers that are auto as the traffic shifts");
  options.add("min-prefill", &s.min_prefill, "Prefill workers that are never given another role");
  options.add("min-decode", &s.min_decode, "Decode workers that are never given another role");
  options.add("min-mixed", &s.min_mixed, "Mixed workers that are never given another role");
}

result<PlacementConfig> make_placement(const PlacementSettings& s) {
  PlacementConfig out;
  BATON_TRY(out.classes, router::parse_slo_classes(s.slo_class, s.default_slo_class));
  const auto policy = router::parse_policy(s.policy);
  if (!policy) return error(Errc::kInvalidArgument, "--policy: " + policy.error().message);
  out.placement.policy = *policy;
  out.placement.admission = s.admission;
  out.placement.most_local_tokens = s.local_prefill_tokens;
  out.placement.classes = out.classes.all;
  out.placement.seed = std::random_device{}();
  if (!s.move_roles) return out;
  out.roles.emplace();
  out.roles->min_prefill = s.min_prefill;
  out.roles->min_decode = s.min_decode;
  out.roles->min_mixed = s.min_mixed;
  return out;
}

std::vector<std::string> placement_args(const PlacementSettings& s) {
  std::vector<std::string> args = {"--policy",
                                   s.policy,
                                   "--default-slo-class",
                                   s.default_slo_class,
                                   "--local-prefill-tokens",
                                   std::to_string(s.local_prefill_tokens),
                                   "--min-prefill",
                                   std::to_string(s.min_prefill),
                                   "--min-decode",
                                   std::to_string(s.min_decode),
                                   "--min-mixed",
                                   std::to_string(s.min_mixed)};
  args.push_back(s.move_roles ? "--move-roles=true" : "--move-roles=false");
  args.push_back(s.admission ? "--admission=true" : "--admission=false");
  if (!s.slo_class.empty()) args.push_back("--slo-class");
  args.insert(args.end(), s.slo_class.begin(), s.slo_class.end());
  return args;
}

}  // namespace baton::cli
