#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace baton::gpu {

// When the GPU had something to do, as CUPTI says it: kernels, also those of recorded graphs, and
// copies.
struct Busy {
  double span_s = 0;  // from the first one's begin to the last one's end
  double idle_s = 0;  // of it, with none running: launch gaps
  uint64_t kernels = 0;
  double idle_share() const { return span_s > 0 ? idle_s / span_s : 0; }
};

// Runs `work`, which ends with the GPU idle. Looking costs time of its own, so that these are not
// the spans that a clock would have seen. Nothing where CUPTI is not there, or not all of it could
// be traced; BATON_CUPTI may name its library. By one thread.
std::optional<Busy> trace_kernels(const std::function<void()>& work);

}  // namespace baton::gpu
