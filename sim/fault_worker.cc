#include "sim/fault_worker.h"

#include <algorithm>

#include "sim/engine.h"

namespace baton::sim {
namespace {

kvtransfer::HandoffConfig handoff_config(const WorkerShape& shape, WorkerId id) {
  kvtransfer::HandoffConfig c;
  c.worker = id;
  c.model_key = "m";
  c.numerics = "sim";
  c.layout = fault_layout(shape.block_tokens);
  c.layout.shard_heads = shape.shard_heads;
  c.num_blocks = shape.num_blocks;
  c.max_parked_blocks = shape.num_blocks / 2;
  // The server's timers, five times as fast: more happens in a second.
  c.heartbeat_every = milliseconds(100);
  c.peer_timeout = milliseconds(800);
  c.lease = seconds(1);
  c.renew_every = milliseconds(200);
  c.park_timeout = seconds(6);
  c.early_credit_ttl = seconds(2);
  c.read_bytes = 512;  // several reads even for a short prompt
  c.window_bytes = 4096;
  c.window_reads = c.turns_window_reads = 6;
  if (shape.protocol == net::kProtocolMin) c.protocol_max = kvtransfer::kProtocolTurns - 1;
  return c;
}

engine::StepLimits step_limits(const WorkerShape& shape) {
  const uint32_t context = std::min(200u, shape.num_blocks * shape.block_tokens);
  return {.max_rows = shape.chunk_tokens + shape.max_sequences,
          .max_sequences = shape.max_sequences + 1 + shape.chunk_tokens / shape.block_tokens,
          .max_slots = shape.max_sequences * 2,
          .max_context = context};
}

}  // namespace

kvcache::KvLayout fault_layout(uint32_t block_tokens) {
  return kvcache::KvLayout::full_kv(kFaultLayers, kFaultKvHeads, 4, DType::kBF16, block_tokens);
}

WorkerSetup fault_worker(const WorkerShape& shape, WorkerId id) {
  WorkerSetup setup;
  worker::CoreConfig& core = setup.core;
  core.role = shape.role;
  core.auto_role = shape.auto_role;
  core.handoff = handoff_config(shape, id);
  core.model_key = {"w", "", "t"};
  core.limits = step_limits(shape);
  core.requests.vocab_size = Engine::kVocabulary;
  core.requests.eos = {Engine::kEos};
  core.requests.max_context = core.limits.max_context;
  core.num_blocks = shape.num_blocks;
  core.chunk_tokens = shape.chunk_tokens;
  core.layer_token_bytes = 1 << 20;  // many words to readers, of which some get lost
  core.preempt_every = shape.preempt_every;
  setup.max_sequences = shape.max_sequences;
  setup.step_depth = shape.step_depth;
  setup.protocol = shape.protocol;
  setup.make_engine = [slots = core.limits.max_slots, layer_time = shape.layer_time](
                          const kvcache::KvCache& cache,
                          const VirtualEngine::Callbacks& callbacks) {
    return std::make_unique<Engine>(cache, slots, layer_time, callbacks);
  };
  return setup;
}

}  // namespace baton::sim
