#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

// Whose trace a request belongs to: W3C Trace Context (https://www.w3.org/TR/trace-context/). Pure.
namespace baton::router {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

struct TraceContext {
  TraceId trace{};       // never all zeros
  SpanId parent{};       // the caller's span; all zeros: there is none
  bool sampled = false;  // to be recorded
  std::string state;     // tracestate, as it came; opaque

  bool has_parent() const {
    return std::ranges::any_of(parent, [](uint8_t byte) { return byte != 0; });
  }
};

// What a request's `traceparent` says. Nothing: it is not as the specification has it, and the
// request begins a trace of its own. A `tracestate` that is too long or unprintable is dropped.
std::optional<TraceContext> parse_trace_context(std::string_view traceparent,
                                                std::string_view tracestate);

std::string to_hex(std::span<const uint8_t> bytes);

}  // namespace baton::router
