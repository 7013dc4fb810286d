#pragma once

#include <cstdint>
#include <vector>

#include "sim/cluster/measures.h"
#include "sim/cluster/trace_file.h"
#include "sim/plan/hardware.h"

// What the latency model says without a simulation: who cannot serve, and what nobody can exceed.
// Pure.
namespace baton::sim {

// What a worker does of a request.
enum class Phase : uint8_t { kPrefill, kDecode, kBoth };

// A request on an idle worker of this kind. Seconds.
double idle_ttft(const WorkerOption& worker, uint64_t prompt, uint32_t chunk);
double idle_tpot(const WorkerOption& worker, uint64_t prompt, uint64_t output);

// Requests of the trace, in [0, 1], that miss a target even if each has its own idle workers: TTFT
// on any of `prefill`, TPOT on any of `decode`. Prompts that others share count as computed whole.
double impossible_share(const TraceFile& trace, const std::vector<const WorkerOption*>& prefill,
                        const std::vector<const WorkerOption*>& decode, uint32_t chunk,
                        const Slo& slo);

// No worker of this kind serves more requests a second than this if `share` of them meet their
// targets: the cheapest ones, in batches without a gap, as full as memory and TPOT let them be. The
// bound is of the mean over a long time. Infinite for prefill of traces whose prompts have tokens
// in common.
double most_per_second(const WorkerOption& worker, Phase phase, const TraceFile& trace,
                       uint32_t chunk, uint32_t max_sequences, double share, const Slo& slo);

}  // namespace baton::sim
