#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "common/net/name_lookup.h"
#include "router/traces/request_spans.h"
#include "router/traces/trace_config.h"
#include "router/traces/trace_context.h"

namespace baton::router {

// Tells a collector of requests that are over, from a thread of its own: whoever adds one never
// waits. What finds no room, or no collector within the time, is dropped and counted.
class TraceExporter {
 public:
  static std::unique_ptr<TraceExporter> start(TraceConfig config,
                                              net::NameLookup lookup = net::ask_system);
  // Sends what waits, as far as that goes within last_words.
  virtual ~TraceExporter() = default;

  // The trace of a request that brought `given`; without it a new one, sampled by the ratio. One
  // thread.
  virtual TraceContext context_of(const std::optional<TraceContext>& given) = 0;
  // Never blocks. One that is not sampled must not be added. One thread.
  virtual void add(TracedRequest request) = 0;

  // Requests. Any thread. Of spans that a collector rejects out of a batch that it takes, it does
  // not say whose they are: each counts as a dropped request, as far as the batch has so many.
  virtual uint64_t exported() const = 0;
  virtual uint64_t dropped() const = 0;
};

}  // namespace baton::router
