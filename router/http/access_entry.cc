#include "router/http/access_entry.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <concepts>
#include <iterator>
#include <optional>

#include "router/openai/json_writer.h"

namespace baton::router {
namespace {

using std::chrono::system_clock;

double to_ms(Duration d) { return to_seconds(d) * 1e3; }
std::string_view or_dash(std::string_view text) { return text.empty() ? "-" : text; }

// One object, field by field.
class JsonLine {
 public:
  void add(std::string_view key, std::string_view text) {
    begin(key);
    append_json_string(out_, text);
  }
  void add(std::string_view key, std::integral auto number) {
    begin(key);
    fmt::format_to(std::back_inserter(out_), "{}", number);
  }
  void add_ms(std::string_view key, Duration d) {
    begin(key);
    fmt::format_to(std::back_inserter(out_), "{:.3f}", to_ms(d));
  }
  void add(std::string_view key, JsonLine&& object) {
    begin(key);
    out_ += std::move(object).take();
  }
  void add_if(std::string_view key, std::string_view text) {
    if (!text.empty()) add(key, text);
  }
  void add_if(std::string_view key, const std::optional<Duration>& d) {
    if (d) add_ms(key, *d);
  }
  bool empty() const { return out_.empty(); }
  std::string take() && { return std::move(out_) + "}"; }

 private:
  void begin(std::string_view key) {
    out_ += out_.empty() ? '{' : ',';
    append_json_string(out_, key);
    out_ += ':';
  }

  std::string out_;
};

std::string utc(system_clock::time_point now) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - whole).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(system_clock::to_time_t(whole)),
                     ms);
}

void add_stages(JsonLine& line, const RequestStages& s) {
  JsonLine first, second;
  first.add_if("parse", s.parse);
  first.add_if("admission", s.admission);
  first.add_if("reserve", s.reserve);
  first.add_if("prefill_queue", s.prefill_queue);
  first.add_if("prefill", s.prefill);
  first.add_if("relay", s.relay);
  if (!first.empty()) line.add("ttft_stages_ms", std::move(first));
  second.add_if("parked", s.parked);
  second.add_if("exposed_transfer", s.exposed_transfer);
  second.add_if("decode_queue", s.decode_queue);
  second.add_if("first_step", s.first_step);
  second.add_if("handover_relay", s.handover_relay);
  second.add_if("handover_rest", s.handover_rest);
  if (!second.empty()) line.add("handover_stages_ms", std::move(second));
}

void add_model(JsonLine& line, const RequestFacts& f) {
  line.add("model", f.model);
  line.add("prompt_tokens", f.prompt_tokens);
  line.add("cached_tokens", f.cached_tokens);
  line.add("output_tokens", f.output_tokens);
  line.add_if("ttft_ms", f.ttft);
  line.add_if("tpot_ms", f.tpot);
  line.add_if("gap_ms", f.worst_gap);
  line.add_if("predicted_ttft_ms", f.predicted_ttft);
  line.add_if("predicted_tpot_ms", f.predicted_tpot);
  line.add_if("prefill", f.prefill);
  line.add_if("decode", f.decode);
  line.add_if("stage", f.stage);
  line.add("kv_bytes", f.kv_bytes);
  line.add("retries", f.retries);
  line.add("retargets", f.retargets);
  line.add("resumes", f.resumes);
  line.add("preemptions", f.preemptions);
  if (f.parked > Duration::zero()) line.add_ms("parked_ms", f.parked);
  add_stages(line, f.stages);
}

}  // namespace

std::string_view reason_of(const AccessEntry& entry) {
  if (!entry.facts.finish.empty()) return entry.facts.finish;
  return entry.reason.empty() ? entry.outcome : entry.reason;
}

std::string facts_text(const RequestFacts& f) {
  std::string out;
  const auto to = std::back_inserter(out);
  if (!f.tenant.empty()) fmt::format_to(to, " tenant={}", f.tenant);
  if (!f.refused.empty()) fmt::format_to(to, " refused={}", f.refused);
  if (!f.model.empty()) {
    fmt::format_to(to,
                   " model={} finish={} prompt_tokens={} output_tokens={} ttft_ms={:.1f} "
                   "prefill={} decode={} retries={} retargets={} resumes={}",
                   f.model, f.finish, f.prompt_tokens, f.output_tokens,
                   to_ms(f.ttft.value_or(Duration::zero())), or_dash(f.prefill), or_dash(f.decode),
                   f.retries, f.retargets, f.resumes);
  }
  if (f.parked > Duration::zero()) fmt::format_to(to, " parked_ms={:.1f}", to_ms(f.parked));
  if (!f.slo_class.empty()) fmt::format_to(to, " slo={} slo_result={}", f.slo_class, f.slo_result);
  if (f.tpot) {
    fmt::format_to(to, " tpot_ms={:.2f} gap_ms={:.1f}", to_ms(*f.tpot),
                   to_ms(f.worst_gap.value_or(Duration::zero())));
  }
  if (f.predicted_ttft) fmt::format_to(to, " predicted_ttft_ms={:.1f}", to_ms(*f.predicted_ttft));
  if (f.predicted_tpot) fmt::format_to(to, " predicted_tpot_ms={:.2f}", to_ms(*f.predicted_tpot));
  if (!f.stage.empty()) fmt::format_to(to, " stage={}", f.stage);
  if (!f.ignored.empty()) fmt::format_to(to, " ignored={}", fmt::join(f.ignored, ","));
  if (!out.empty()) out.erase(0, 1);
  return out;
}

std::string access_text(const AccessEntry& e) {
  const std::string facts = facts_text(e.facts);
  return fmt::format(
      "access id={} peer={} method={} path={} status={} outcome={} bytes={} "
      "ms={:.1f}{}{}",
      e.head.request_id, e.head.peer, e.head.method, e.head.path, static_cast<int>(e.status),
      e.outcome, e.bytes, to_ms(e.took), facts.empty() ? "" : " ", facts);
}

std::string access_json(const AccessEntry& e, system_clock::time_point now) {
  JsonLine line;
  line.add("time", utc(now));
  line.add("id", e.head.request_id);
  line.add_if("trace_id", e.trace_id);
  line.add("peer", e.head.peer);
  line.add("method", e.head.method);
  line.add("path", e.head.path);
  line.add("status", static_cast<int>(e.status));
  line.add("reason", reason_of(e));
  line.add("outcome", e.outcome);
  line.add("bytes", e.bytes);
  line.add_ms("ms", e.took);
  line.add_if("tenant", e.facts.tenant);
  line.add_if("class", e.facts.slo_class);
  line.add_if("slo_result", e.facts.slo_result);
  if (!e.facts.model.empty()) add_model(line, e.facts);
  return std::move(line).take();
}

}  // namespace baton::router
