#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/result.h"
#include "router/traces/trace_config.h"

namespace baton::cli {

// Who is told of traces: options that a router has, and a whole cluster.
struct TraceSettings {
  std::string otlp_endpoint;
  std::string otlp_headers_file;
  double trace_sample_ratio = 1;
};

void add_trace_options(Options& options, TraceSettings& settings);
// Nothing: nobody is. Errors name file or option, and hold no header's value.
result<std::optional<router::TraceConfig>> read_traces(const TraceSettings& settings);
// The same options, for a router that is a child.
std::vector<std::string> trace_args(const TraceSettings& settings);

}  // namespace baton::cli
