#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/cluster/measures.h"
#include "sim/cluster/trace_file.h"

namespace baton::sim {

// A trace whose traffic shifts: "phases:SECONDSxRATE:IN,OUT/…", phase after phase of Poisson
// arrivals at that rate, with lengths as of lengths:IN,OUT. The same requests each time.
result<TraceFile> phases_trace(const std::string& what);

// The requests of each phase by themselves. `outcomes` are those of the trace's requests, in order;
// phases that they do not reach have none.
std::vector<Measures> measure_phases(std::span<const Outcome> outcomes, const TraceFile& trace,
                                     const Slo& slo);

// For people: a line a phase, its means over runs. `runs` is by run, then by phase.
std::string phase_table(const TraceFile& trace, std::span<const std::vector<Measures>> runs);

}  // namespace baton::sim
