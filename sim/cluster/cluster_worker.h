#pragma once

#include "sim/cluster/cluster_spec.h"
#include "sim/cluster/step_times.h"
#include "sim/cluster/timed_engine.h"
#include "sim/worker.h"

namespace baton::sim {

// A worker of the cluster as the server would set it up, with an engine that takes its time.
// `times`: recorded ones; null: the profile's. `load_every`: between its words of its load.
WorkerSetup cluster_worker(const WorkerGroup& group, WorkerId id, std::string name,
                           const RecordedSteps* times, TimedEngine::OutputLength output_length,
                           Duration load_every = milliseconds(50));

// A byte of a cluster worker's cache stands for so many on the links.
double bytes_scale(const WorkerGroup& group);

inline constexpr uint32_t kClusterVocabulary = 1u << 30;
inline constexpr const char* kClusterModel = "m";

}  // namespace baton::sim
