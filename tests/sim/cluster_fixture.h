#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "common/base/log.h"
#include "sim/cluster/cluster_run.h"
#include "sim/cluster/measures.h"

namespace baton::sim {

// Small clusters of a device whose times are round.
class ClusterTest : public testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
  void TearDown() override { spdlog::set_level(spdlog::level::info); }

  static latency::Profile profile() {
    latency::Profile p;
    p.name = "test";
    p.kv_bytes_per_token = 100'000;
    p.step = {.fixed = 4e-3,
              .row = 1e-5,
              .row_beyond = 1e-5,
              .context_token = 3e-8,
              .attended_pair = 1e-9,
              .output = 1e-6,
              .ridge_rows = 100};
    p.link = {.latency = 2e-5, .byte = 2e-11};
    return p;
  }

  static WorkerGroup group(proto::Role role, uint32_t count) {
    WorkerGroup g;
    g.role = role;
    g.count = count;
    g.profile = profile();
    g.kv_tokens = 200'000;
    g.nic_bytes_per_second = 1 / g.profile.link.byte;
    g.read_latency = g.profile.link.latency;
    return g;
  }
  static ClusterSpec mixed(uint32_t count) {
    return {.name = "test", .groups = {group(proto::ROLE_MIXED, count)}};
  }
  static ClusterSpec split(uint32_t prefill, uint32_t decode) {
    return {.name = "test",
            .groups = {group(proto::ROLE_PREFILL, prefill), group(proto::ROLE_DECODE, decode)}};
  }

  // Every prompt is computed where its role says, and none is refused for what it may miss.
  static ClusterRunOptions plain() {
    ClusterRunOptions options;
    options.placement.policy = router::Policy::kLeastLoaded;
    options.placement.admission = false;
    options.placement.most_local_tokens = 0;
    return options;
  }

  static TraceFile lengths(std::vector<std::pair<uint32_t, uint32_t>> all) {
    TraceFile trace;
    trace.name = "test";
    trace.has_arrivals = true;  // in this order
    for (const auto& [in, out] : all) trace.entries.push_back({{}, in, out, 0, 0});
    return trace;
  }
  static Traffic poisson(const TraceFile& trace, double rate, uint64_t count, uint64_t seed = 1) {
    return *Traffic::make(trace, {{Arrivals::Kind::kPoisson}, rate, count, seed});
  }
};

}  // namespace baton::sim
