#include "cli/trace_options.h"

#include <fmt/format.h>

#include "common/base/secret_lines.h"

namespace baton::cli {

void add_trace_options(Options& options, TraceSettings& settings) {
  options.add("otlp-endpoint", &settings.otlp_endpoint,
              "http(s)://host:port of a collector that gets traces (OTLP/HTTP); empty: none");
  options.add("otlp-headers-file", &settings.otlp_headers_file,
              "File with one 'name: value' a line that the collector gets as headers; empty: none");
  options.add("trace-sample-ratio", &settings.trace_sample_ratio,
              "Share of the requests without a traceparent that is traced, 0 to 1");
}

result<std::optional<router::TraceConfig>> read_traces(const TraceSettings& s) {
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (!(s.trace_sample_ratio >= 0 && s.trace_sample_ratio <= 1)) {
    return bad("--trace-sample-ratio is not in [0, 1]");
  }
  if (s.otlp_endpoint.empty()) {
    if (s.otlp_headers_file.empty()) return std::optional<router::TraceConfig>();
    return bad("--otlp-headers-file needs --otlp-endpoint");
  }
  router::TraceConfig traces;
  auto endpoint = router::parse_otlp_endpoint(s.otlp_endpoint);
  if (!endpoint) return bad("--otlp-endpoint: " + endpoint.error().message);
  traces.endpoint = std::move(*endpoint);
  traces.sample_ratio = s.trace_sample_ratio;
  if (!s.otlp_headers_file.empty()) {
    const auto lines = read_secret_lines(s.otlp_headers_file);
    if (!lines) {
      return error(lines.error().code,
                   "the headers in '" + s.otlp_headers_file + "': " + lines.error().message);
    }
    BATON_TRY(traces.headers, router::parse_header_lines(*lines));
  }
  return std::optional(std::move(traces));
}

std::vector<std::string> trace_args(const TraceSettings& s) {
  return {"--otlp-endpoint",   s.otlp_endpoint,        "--otlp-headers-file",
          s.otlp_headers_file, "--trace-sample-ratio", fmt::format("{}", s.trace_sample_ratio)};
}

}  // namespace baton::cli
