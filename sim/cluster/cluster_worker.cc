#include "sim/cluster/cluster_worker.h"

#include <algorithm>
#include <utility>

#include "common/engine/emulated_engine.h"

namespace baton::sim {
namespace {

engine::StepLimits step_limits(const WorkerGroup& g) {
  const uint64_t most =
      g.max_context == 0 ? g.kv_tokens : std::min<uint64_t>(g.max_context, g.kv_tokens);
  const auto context = static_cast<uint32_t>(most);
  const uint32_t chunk = g.chunk_tokens == 0 ? context : g.chunk_tokens;
  return {.max_rows = g.step_tokens != 0 ? g.step_tokens : chunk + g.max_sequences,
          .max_sequences = g.max_sequences + 1 + chunk / g.block_tokens,
          .max_slots = g.max_sequences * 2,
          .max_context = context};
}

// As the server's, but that silence is nobody's death: a worker that dies is reported here.
kvtransfer::HandoffConfig handoff_config(const WorkerGroup& g, WorkerId id, uint32_t num_blocks) {
  constexpr Duration kNever = std::chrono::hours(24 * 365);
  kvtransfer::HandoffConfig c;
  c.worker = id;
  c.model_key = "m";
  c.numerics = "sim";
  c.layout = engine::EmulatedEngine::layout(g.block_tokens);
  c.num_blocks = num_blocks;
  c.max_parked_blocks = num_blocks / 2;
  c.heartbeat_every = kNever;
  c.peer_timeout = kNever;
  c.verify_digests = false;  // there are no bytes
  // What is announced at once is one read: the links share their rate among connections anyway.
  c.read_bytes = c.window_bytes = uint64_t{1} << 60;
  return c;
}

}  // namespace

double bytes_scale(const WorkerGroup& group) {
  const kvcache::KvLayout layout = engine::EmulatedEngine::layout(group.block_tokens);
  return static_cast<double>(group.profile.kv_bytes_per_token) * group.block_tokens /
         static_cast<double>(layout.block_bytes());
}

WorkerSetup cluster_worker(const WorkerGroup& group, WorkerId id, std::string name,
                           const RecordedSteps* times, TimedEngine::OutputLength output_length,
                           Duration load_every) {
  const auto num_blocks = static_cast<uint32_t>(group.kv_tokens / group.block_tokens);
  WorkerSetup setup;
  setup.name = std::move(name);
  worker::CoreConfig& core = setup.core;
  core.role = group.role;
  core.auto_role = group.auto_role;
  core.handoff = handoff_config(group, id, num_blocks);
  core.handoff.link = {group.read_latency, bytes_scale(group) / group.nic_bytes_per_second};
  core.layer_token_bytes = group.profile.kv_bytes_per_token / core.handoff.layout.num_layers();
  core.model_key = {"w", "", "t"};
  core.limits = step_limits(group);
  core.requests.vocab_size = kClusterVocabulary;
  core.requests.eos = {TimedEngine::kEos};
  core.requests.max_context = core.limits.max_context;
  if (group.auto_role || group.role != proto::ROLE_PREFILL)
    core.requests.max_choices = group.max_sequences;
  core.num_blocks = num_blocks;
  core.chunk_tokens = group.chunk_tokens;
  core.prefix_cache = group.prefix_cache;
  core.prefix_hash = kvcache::PrefixHashKind::kFast;
  setup.model = kClusterModel;
  setup.max_sequences = group.max_sequences;
  setup.profile = group.profile;
  setup.learns = times != nullptr;  // the profile's times would teach it nothing
  setup.tick = load_every;
  setup.load_every = seconds(1);
  const StepTimes step_times =
      times == nullptr ? StepTimes(group.profile.step) : StepTimes(group.profile.step, *times);
  setup.make_engine = [layout = core.handoff.layout, slots = core.limits.max_slots, step_times,
                       output_length = std::move(output_length)](
                          const kvcache::KvCache&, const VirtualEngine::Callbacks& callbacks) {
    return std::make_unique<TimedEngine>(layout, slots, step_times, output_length, callbacks);
  };
  return setup;
}

}  // namespace baton::sim
