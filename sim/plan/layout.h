#pragma once

#include <cstdint>
#include <string>

#include "sim/cluster/cluster_spec.h"
#include "sim/plan/hardware.h"

namespace baton::sim {

// Workers of one kind and role.
struct WorkerPool {
  const WorkerOption* worker = nullptr;  // of the table
  uint32_t count = 0;

  uint32_t gpus() const { return count * worker->tensor_parallel; }
  double cost() const { return count * worker->cost; }
  friend bool operator==(const WorkerPool&, const WorkerPool&) = default;
};

// A placement, as a plan has it: one pool of mixed workers, or one that computes prompts and one
// that decodes.
struct Layout {
  WorkerPool prefill{}, decode{};  // of a split one; else their count is 0
  WorkerPool mixed{};              // of a mixed one; else its count is 0
  uint32_t chunk_tokens = 0;       // prompt tokens in a step
  // So many clusters of this kind, each by itself with a router of its own: KV then stays within a
  // node, whose links it has (DistServe's placement for low node-affinity).
  uint32_t units = 1;
  bool within_node = false;

  bool split() const { return mixed.count == 0; }
  uint32_t gpus() const;  // of all units
  double cost() const;
  std::string to_string() const;  // "2 × h200 TP1 prefill + 6 × h200 TP1 decode"
  friend bool operator==(const Layout&, const Layout&) = default;
};

// One unit of it, as a cluster that is not there.
ClusterSpec cluster_of(const Hardware& table, const Layout& layout);
// `count` workers that do one phase only, by themselves: of kPrefill, mixed ones (whose requests
// end with their first token); of kDecode, beside a worker that computes prompts in no time.
ClusterSpec phase_alone(const Hardware& table, const WorkerPool& pool, bool decode,
                        uint32_t chunk_tokens, bool within_node);

}  // namespace baton::sim
