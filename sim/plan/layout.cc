#include "sim/plan/layout.h"

#include <fmt/format.h>

namespace baton::sim {
namespace {

std::string words(const WorkerPool& pool, const char* role) {
  return fmt::format("{} × {} {}", pool.count, pool.worker->to_string(), role);
}

WorkerGroup group_of(const Hardware& table, const WorkerPool& pool, proto::Role role,
                     uint32_t chunk_tokens, bool within_node) {
  const WorkerOption& w = *pool.worker;
  WorkerGroup g;
  g.role = role;
  g.count = pool.count;
  g.profile_path = w.profile_path.string();
  g.profile = w.profile;
  g.gpus = w.tensor_parallel;
  g.kv_tokens = w.kv_tokens;
  g.block_tokens = table.block_tokens;
  g.chunk_tokens = chunk_tokens;
  g.max_sequences = table.max_sequences;
  g.nic_bytes_per_second = within_node ? w.node_bytes_per_second : w.nic_bytes_per_second;
  g.read_latency = w.read_latency;
  return g;
}

// Computes prompts in no time, and holds what nobody has fetched yet.
WorkerGroup ideal_prefill(const WorkerGroup& decode) {
  WorkerGroup g = decode;
  g.role = proto::ROLE_PREFILL;
  g.count = 1;
  g.gpus = 0;
  g.profile.step = {.fixed = 1e-6};
  g.kv_tokens = 4'000'000;
  g.chunk_tokens = 0;
  g.step_tokens = 1'000'000;
  g.max_context = 0;
  g.nic_bytes_per_second = 1e15;
  g.prefix_cache = false;
  return g;
}

}  // namespace

uint32_t Layout::gpus() const {
  return units * (split() ? prefill.gpus() + decode.gpus() : mixed.gpus());
}

double Layout::cost() const {
  return units * (split() ? prefill.cost() + decode.cost() : mixed.cost());
}

std::string Layout::to_string() const {
  if (!split()) return fmt::format("{}, chunks of {}", words(mixed, "mixed"), chunk_tokens);
  const std::string one = words(prefill, "prefill") + " + " + words(decode, "decode");
  if (!within_node) return one;
  return units == 1 ? one + " in a node" : fmt::format("{} nodes, each {}", units, one);
}

ClusterSpec cluster_of(const Hardware& table, const Layout& layout) {
  ClusterSpec spec;
  spec.name = table.name;
  spec.message_latency = table.message_latency;
  const auto add = [&](const WorkerPool& pool, proto::Role role) {
    spec.groups.push_back(group_of(table, pool, role, layout.chunk_tokens, layout.within_node));
  };
  if (layout.split()) {
    add(layout.prefill, proto::ROLE_PREFILL);
    add(layout.decode, proto::ROLE_DECODE);
  } else {
    add(layout.mixed, proto::ROLE_MIXED);
  }
  return spec;
}

ClusterSpec phase_alone(const Hardware& table, const WorkerPool& pool, bool decode,
                        uint32_t chunk_tokens, bool within_node) {
  ClusterSpec spec;
  spec.name = table.name;
  spec.message_latency = table.message_latency;
  const WorkerGroup g = group_of(table, pool, decode ? proto::ROLE_DECODE : proto::ROLE_MIXED,
                                 chunk_tokens, within_node);
  if (decode) spec.groups.push_back(ideal_prefill(g));
  spec.groups.push_back(g);
  return spec;
}

}  // namespace baton::sim
