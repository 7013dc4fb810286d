#pragma once

#include <string>
#include <vector>

#include "sim/plan/planner.h"

// What came out of a plan, for people, for programs, and as files. Pure.
namespace baton::sim {

struct PlanHead {
  std::string hardware, trace;
  const PlanOptions* options = nullptr;
};

std::string plan_table(const PlanHead& head, const PlanResult& plan);
std::string plan_json(const PlanHead& head, const PlanResult& plan);

// One unit of a layout as files: a cluster that `baton sim --cluster` takes, and the profiles that
// are derived, beside it. `stem` is the cluster file's name without its ending.
struct PlanFile {
  std::string name;  // beside the others
  std::string text;
};
struct ClusterFiles {
  std::string cluster;  // the text
  std::vector<PlanFile> profiles;
};
// `folder`: where the cluster file will be, absolute; profiles that exist are named from it.
ClusterFiles cluster_files(const Hardware& table, const Layout& layout, const std::string& stem,
                           const std::filesystem::path& folder);

// The flags by which `baton up`, or `baton worker` of each role, makes one unit of it.
std::string up_flags(const Hardware& table, const Layout& layout);
std::string worker_flags(const Hardware& table, const Layout& layout, const WorkerPool& pool,
                         const char* role);

}  // namespace baton::sim
