#include "router/traces/request_spans.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace baton::router {
namespace {

constexpr uint32_t kInternal = 1, kServer = 2, kError = 2;
// Flags of a span: sampled; and whether its parent is of another process.
constexpr uint32_t kSampled = 1, kKnowsRemote = 0x100, kRemote = 0x200;

void set(otlp::Span& span, std::string_view key, std::string_view text) {
  if (text.empty()) return;
  otlp::KeyValue& attribute = *span.add_attributes();
  attribute.set_key(std::string(key));
  attribute.mutable_value()->set_string_value(std::string(text));
}
void set(otlp::Span& span, std::string_view key, int64_t number) {
  otlp::KeyValue& attribute = *span.add_attributes();
  attribute.set_key(std::string(key));
  attribute.mutable_value()->set_int_value(number);
}

std::string bytes_of(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

std::string id_bytes(uint64_t id) {
  std::string out(8, '\0');
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<char>(id >> (56 - 8 * i));
  return out;
}

// The spans of one request, which share much.
class Spans {
 public:
  Spans(const TracedRequest& request, const std::function<uint64_t()>& next_id,
        otlp::ScopeSpans& out)
      : request_(request), next_id_(next_id), out_(out) {}

  otlp::Span& add(std::string_view name, TimePoint begin, TimePoint end,
                  const std::string& parent) {
    otlp::Span& span = *out_.add_spans();
    span.set_trace_id(bytes_of(request_.context.trace));
    span.set_span_id(id_bytes(next_id_()));
    span.set_parent_span_id(parent);
    span.set_trace_state(request_.context.state);
    span.set_name(std::string(name));
    span.set_kind(kInternal);
    span.set_flags(kSampled | kKnowsRemote);
    span.set_start_time_unix_nano(unix_nano(begin));
    span.set_end_time_unix_nano(unix_nano(std::max(begin, end)));
    return span;
  }
  // One behind the other, from `at` on; what is not known is left out. Returns their end.
  using Stage = std::pair<const char*, std::optional<Duration>>;
  TimePoint add_stages(const std::vector<Stage>& stages, TimePoint at, const std::string& parent) {
    for (const auto& [name, took] : stages) {
      if (!took) continue;
      add(name, at, at + *took, parent);
      at += *took;
    }
    return at;
  }

 private:
  uint64_t unix_nano(TimePoint at) const {
    const auto when = request_.ended_at - (request_.ended - at);
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count());
  }

  const TracedRequest& request_;
  const std::function<uint64_t()>& next_id_;
  otlp::ScopeSpans& out_;
};

bool has_failed(const TracedRequest& r) {
  if (r.status >= 500) return true;
  const bool left = r.reason == "disconnected" || r.reason == "too_slow";  // the client's doing
  return r.status < 400 && r.reason != "ok" && !left;
}

void describe(const TracedRequest& r, otlp::Span& span) {
  const RequestFacts& f = r.facts;
  set(span, "http.request.method", r.method);
  set(span, "url.path", r.path);
  set(span, "http.response.status_code", r.status);
  set(span, "baton.request_id", r.request_id);
  set(span, "baton.reason", r.reason);
  set(span, "baton.tenant", f.tenant);
  set(span, "baton.slo_class", f.slo_class);
  set(span, "baton.slo_result", f.slo_result);
  if (has_failed(r)) {
    span.mutable_status()->set_code(kError);
    span.mutable_status()->set_message(r.reason);
  }
  if (f.model.empty()) return;
  set(span, "gen_ai.request.model", f.model);
  set(span, "gen_ai.usage.input_tokens", f.prompt_tokens);
  set(span, "gen_ai.usage.output_tokens", f.output_tokens);
  set(span, "baton.cached_tokens", f.cached_tokens);
  set(span, "baton.retries", f.retries);
  set(span, "baton.retargets", f.retargets);
  set(span, "baton.resumes", f.resumes);
  set(span, "baton.preemptions", f.preemptions);
  set(span, "baton.cut_off_in", f.stage);
}

Duration sum(std::initializer_list<std::optional<Duration>> parts) {
  Duration whole{};
  for (const auto& part : parts) whole += part.value_or(Duration::zero());
  return whole;
}

// Where the client was written the first token late, the parts had begun before that.
void add_handover(const RequestFacts& f, TimePoint granted, TimePoint first, TimePoint second,
                  const std::string& root, Spans& spans) {
  const RequestStages& s = f.stages;
  otlp::Span& span = spans.add("handover", first, second, root);
  const std::string id = span.span_id();
  set(span, "baton.kv_bytes", static_cast<int64_t>(f.kv_bytes));
  set(span, "baton.prefill_worker", f.prefill);
  set(span, "baton.decode_worker", f.decode);
  const Duration known =
      sum({s.parked, s.exposed_transfer, s.decode_queue, s.first_step, s.handover_relay});
  spans.add_stages({{"parked", s.parked},
                    {"exposed_transfer", s.exposed_transfer},
                    {"decode_queue", s.decode_queue},
                    {"first_step", s.first_step},
                    {"relay", s.handover_relay}},
                   std::max(granted, second - known), id);
}

void add_tokens(const RequestFacts& f, TimePoint granted, const std::string& root, Spans& spans) {
  const RequestStages& s = f.stages;
  const TimePoint first = granted + sum({s.prefill_queue, s.prefill, s.relay});
  otlp::Span& prefill = spans.add("prefill", granted, first, root);
  const std::string id = prefill.span_id();
  set(prefill, "baton.worker", f.prefill);
  spans.add_stages({{"prefill_queue", s.prefill_queue}, {"prefill_compute", s.prefill}}, granted,
                   id);
  const TimePoint second = first + s.handover.value_or(Duration::zero());
  if (s.handover) add_handover(f, granted, first, second, root, spans);
  if (!f.last_token || *f.last_token <= second) return;
  set(spans.add("decode", second, *f.last_token, root), "baton.worker",
      f.decode.empty() ? f.prefill : f.decode);
}

}  // namespace

void append_spans(const TracedRequest& r, const std::function<uint64_t()>& next_id,
                  otlp::ScopeSpans& out) {
  Spans spans(r, next_id, out);
  const bool known = !r.facts.model.empty();  // else a path may be anything
  otlp::Span& whole =
      spans.add(known ? fmt::format("{} {}", r.method, r.path) : r.method, r.received, r.ended, "");
  whole.set_kind(kServer);
  if (r.context.has_parent()) {
    whole.set_parent_span_id(bytes_of(r.context.parent));
    whole.set_flags(kSampled | kKnowsRemote | kRemote);
  }
  describe(r, whole);
  const std::string root = whole.span_id();
  const RequestStages& s = r.facts.stages;
  const TimePoint granted = spans.add_stages(
      {{"parse", s.parse}, {"admission", s.admission}, {"reserve", s.reserve}}, r.received, root);
  if (s.relay) add_tokens(r.facts, granted, root, spans);
}

}  // namespace baton::router
