#pragma once

#include <cstdint>
#include <vector>

#include "sim/worker.h"

namespace baton::sim {

// A worker of the fault tests: small, so that it is full at times, with an engine that computes.
struct WorkerShape {
  proto::Role role = proto::ROLE_MIXED;
  bool auto_role = false;
  uint32_t num_blocks = 32;
  uint32_t block_tokens = 8;
  std::vector<uint32_t> shard_heads;  // as KvLayout::shard_heads: a worker of several ranks
  uint32_t chunk_tokens = 16;
  uint32_t max_sequences = 8;
  uint32_t step_depth = 2;
  uint32_t preempt_every = 0;
  uint32_t protocol = net::kProtocolMax;  // that it speaks with routers
  Duration layer_time = microseconds(200);
};

inline constexpr uint32_t kFaultLayers = 3, kFaultKvHeads = 2;
kvcache::KvLayout fault_layout(uint32_t block_tokens);

WorkerSetup fault_worker(const WorkerShape& shape, WorkerId id);

}  // namespace baton::sim
