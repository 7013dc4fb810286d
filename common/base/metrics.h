#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Registry;
}

namespace baton {

// The metrics of one process. Look a series up once, keep the reference, and touch only that on a
// hot path (an increment costs nanoseconds and no lock that another thread can hold for long).
// Thread-safe. References live as long as the registry, or until they are removed.
class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;

  // `fixed` is put on every series of this process (for example model_name).
  explicit Metrics(Labels fixed = {});
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  prometheus::Counter& counter(const std::string& name, const std::string& help,
                               const Labels& labels = {});
  prometheus::Gauge& gauge(const std::string& name, const std::string& help,
                           const Labels& labels = {});
  // Ends a series that gauge() made; references to it are void. For labels whose values come and
  // go, which would otherwise add up for as long as the process lives.
  void remove_gauge(const std::string& name, const Labels& labels);
  // The same of one that counter() made with that name.
  void remove_counter(const std::string& name, prometheus::Counter& counter);
  // `bounds`: upper bounds in the metric's unit, ascending; +Inf is added.
  prometheus::Histogram& histogram(const std::string& name, const std::string& help,
                                   const std::vector<double>& bounds, const Labels& labels = {});

  // The Prometheus text exposition of everything registered.
  std::string serialize() const;

 private:
  Labels with_fixed(const Labels& labels) const;

  Labels fixed_;
  std::shared_ptr<prometheus::Registry> registry_;
};

// Bucket bounds that existing vLLM dashboards chart, in seconds.
const std::vector<double>& ttft_bounds_seconds();
const std::vector<double>& itl_bounds_seconds();
const std::vector<double>& e2e_bounds_seconds();

}  // namespace baton
