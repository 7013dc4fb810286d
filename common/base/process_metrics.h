#pragma once

#include "common/base/metrics.h"

namespace baton {

// What a process tells of itself, by the names that Prometheus' own client libraries use.
class ProcessMetrics {
 public:
  // The time of this call is when the process started: make it early. `metrics` outlives it.
  explicit ProcessMetrics(Metrics& metrics);

  // Brings them up to date: before each scrape. Some tens of microseconds.
  void update();

 private:
  prometheus::Counter& cpu_seconds_;
  prometheus::Gauge& resident_bytes_;
  prometheus::Gauge& open_descriptors_;
  prometheus::Gauge& max_descriptors_;
};

}  // namespace baton
