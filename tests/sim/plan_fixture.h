#pragma once

#include "sim/plan/planner.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {

// A table of the cluster fixture's device, alone and as a pair.
class PlanTest : public ClusterTest {
 protected:
  static ModelShape model() {
    return {.name = "test",
            .weight_bytes = 10e9,
            .kv_bytes_per_token = 100'000,
            .layers = 32,
            .hidden = 4096,
            .kv_heads = 8};
  }
  static DeviceFigures figures() {
    DeviceFigures f;
    f.memory_bytes = 40e9;
    f.bytes_per_second = 3e12;
    f.flop_per_second = 5e14;
    f.step_overhead = 1e-3;
    f.all_reduce_latency = 5e-6;
    f.all_reduce_bytes_per_second = 2e11;
    f.nic_bytes_per_second = 5e10;
    f.node_bytes_per_second = 5e10;
    return f;
  }
  static WorkerOption option(uint32_t degree, const std::string& device = "gpu") {
    WorkerOption w;
    w.device = device;
    w.tensor_parallel = degree;
    w.profile = profile();
    w.profile.step = shared_by(profile().step, model(), figures(), degree);
    w.profile_path = degree == 1 ? "measured.yaml" : "";
    w.kv_tokens = 200'000 * degree;
    w.cost = degree;
    w.nic_bytes_per_second = w.node_bytes_per_second = 5e10 * degree;
    w.read_latency = 20e-6;
    w.available = 1000;
    return w;
  }
  static Hardware table(std::vector<WorkerOption> workers) {
    Hardware h;
    h.name = "test";
    h.workers = std::move(workers);
    return h;
  }

  // Lengths of 1/2, 1 and 3/2 times these means.
  static TraceFile around(uint32_t in, uint32_t out) {
    TraceFile trace;
    trace.name = "test";
    for (const uint32_t i : {1, 2, 3}) {
      for (const uint32_t o : {1, 2, 3})
        trace.entries.push_back({{}, in * i / 2, out * o / 2, 0, 0});
    }
    return trace;
  }

  static PlanOptions options(uint32_t gpus) {
    PlanOptions o;
    o.gpus = gpus;
    o.trials.slo = {milliseconds(100), milliseconds(10)};
    o.trials.requests = 1500;
    o.trials.threads = 2;
    o.mixed_chunks = {256, 1024};
    o.split_chunk = 2048;
    return o;
  }
};

}  // namespace baton::sim
