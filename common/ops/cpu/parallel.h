#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "common/device/cpu/cpu_device.h"

namespace baton::ops {

inline device::CpuStream& cpu_stream(device::Stream& stream) {
  return static_cast<device::CpuStream&>(stream);
}

// Runs body(begin, end) over [0, rows) in slices worth a thread's while; a small operation stays
// on the caller, because waking another core costs more than it saves.
template <class Body>
void parallel_rows(device::Stream& stream, int64_t rows, int64_t elements_per_row, Body&& body) {
  constexpr int64_t kElementsPerTask = 4096;
  if (rows <= 0) return;
  const int64_t work = rows * std::max<int64_t>(elements_per_row, 1);
  const int64_t tasks = std::clamp<int64_t>(work / kElementsPerTask, 1, rows);
  cpu_stream(stream).pool().parallel_for(static_cast<size_t>(tasks), [&](size_t i, unsigned) {
    const int64_t t = static_cast<int64_t>(i);
    body(rows * t / tasks, rows * (t + 1) / tasks);
  });
}

}  // namespace baton::ops
