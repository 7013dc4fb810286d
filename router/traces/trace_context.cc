#include "router/traces/trace_context.h"

#include <cstddef>

namespace baton::router {
namespace {

constexpr size_t kMaxStateBytes = 512;
// version "-" trace "-" parent "-" flags
constexpr size_t kTraceAt = 3, kParentAt = 36, kFlagsAt = 53, kBytes = 55;

// Lower-case only.
int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool read_hex(std::string_view text, std::span<uint8_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool is_zero(std::span<const uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

bool is_state(std::string_view text) {
  return text.size() <= kMaxStateBytes &&
         std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

// Later versions may say more behind what this one has.
bool has_form(std::string_view text, uint8_t version) {
  if (version == 0xff) return false;
  if (version == 0 && text.size() != kBytes) return false;
  if (text.size() > kBytes && text[kBytes] != '-') return false;
  return text[kTraceAt - 1] == '-' && text[kParentAt - 1] == '-' && text[kFlagsAt - 1] == '-';
}

}  // namespace

std::optional<TraceContext> parse_trace_context(std::string_view traceparent,
                                                std::string_view tracestate) {
  if (traceparent.size() < kBytes) return std::nullopt;
  TraceContext out;
  uint8_t version = 0, flags = 0;
  if (!read_hex(traceparent, {&version, 1}) || !has_form(traceparent, version) ||
      !read_hex(traceparent.substr(kTraceAt), out.trace) ||
      !read_hex(traceparent.substr(kParentAt), out.parent) ||
      !read_hex(traceparent.substr(kFlagsAt), {&flags, 1})) {
    return std::nullopt;
  }
  if (is_zero(out.trace) || is_zero(out.parent)) return std::nullopt;
  out.sampled = (flags & 1) != 0;
  if (is_state(tracestate)) out.state = tracestate;
  return out;
}

std::string to_hex(std::span<const uint8_t> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

}  // namespace baton::router
