// The answer of /debug/state.
#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <optional>

#include "router/openai/json_writer.h"
#include "router/page/live_state.h"

namespace baton::router {
namespace {

double to_ms(Duration d) { return to_seconds(d) * 1e3; }

// Writes one value after the other: knows where commas go.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  Writer& open(char bracket) {
    comma();
    out_ += bracket;
    return *this;
  }
  Writer& close(char bracket) {
    out_ += bracket;
    return *this;
  }
  Writer& key(std::string_view name) {
    comma();
    append_json_string(out_, name);
    out_ += ':';
    return *this;
  }
  void text(std::string_view name, std::string_view value) {
    key(name);
    append_json_string(out_, value);
  }
  void number(std::string_view name, std::integral auto value) {
    key(name);
    fmt::format_to(std::back_inserter(out_), "{}", value);
  }
  void number(std::string_view name, double value, int digits = 3) {
    key(name);
    fmt::format_to(std::back_inserter(out_), "{:.{}f}", value, digits);
  }
  void ms(std::string_view name, const std::optional<Duration>& d) {
    if (d) number(name, to_ms(*d));
  }
  void flag(std::string_view name, bool value) {
    key(name);
    out_ += value ? "true" : "false";
  }
  void count(uint32_t value) {
    comma();
    fmt::format_to(std::back_inserter(out_), "{}", value);
  }

 private:
  void comma() {
    const char last = out_.empty() ? '[' : out_.back();
    if (last != '[' && last != '{' && last != ':') out_ += ',';
  }

  std::string& out_;
};

void write(Writer& w, const LiveWorker& worker, bool details) {
  w.open('{');
  w.text("name", worker.name);
  if (details) w.text("address", worker.address);
  w.text("model", worker.model);
  w.text("role", worker.role);
  w.text("state", worker.state);
  w.flag("auto", worker.auto_role);
  w.number("running", worker.running);
  w.number("waiting", worker.waiting);
  w.number("sequences", worker.sequences);
  w.number("queued_tokens", worker.queued_tokens);
  w.number("context_tokens", worker.context_tokens);
  w.number("free_blocks", worker.free_blocks);
  w.number("total_blocks", worker.total_blocks);
  w.number("parked_blocks", worker.parked_blocks);
  w.close('}');
}

void write(Writer& w, const LivePool& pool) {
  w.open('{');
  w.text("role", pool.role);
  w.number("workers", pool.workers);
  w.number("ready", pool.ready);
  w.number("running", pool.running);
  w.number("waiting", pool.waiting);
  w.number("free_blocks", pool.free_blocks);
  w.number("total_blocks", pool.total_blocks);
  w.close('}');
}

void write(Writer& w, const LivePair& pair) {
  w.open('{');
  w.text("prefill", pair.prefill);
  w.text("decode", pair.decode);
  w.number("bytes_per_second", pair.bytes_per_second, 0);
  w.number("bytes", pair.bytes);
  w.number("hand_overs", pair.hand_overs);
  w.number("exposed_ms", pair.exposed_seconds * 1e3);
  w.close('}');
}

void write(Writer& w, const LiveModel& model) {
  w.open('{');
  w.text("name", model.name);
  w.number("running", model.running);
  w.number("waiting", model.waiting);
  w.close('}');
}

// Called as in docs/metrics.md. Those of the hand-over are shown where its sum is known.
void write(Writer& w, const RequestStages& s) {
  w.key("to_first").open('{');
  w.ms("parse", s.parse);
  w.ms("admission", s.admission);
  w.ms("reserve", s.reserve);
  w.ms("prefill_queue", s.prefill_queue);
  w.ms("prefill", s.prefill);
  w.ms("relay", s.relay);
  w.close('}').key("hand_over").open('{');
  if (s.handover) {
    w.ms("parked", s.parked);
    w.ms("exposed_transfer", s.exposed_transfer);
    w.ms("decode_queue", s.decode_queue);
    w.ms("first_step", s.first_step);
    w.ms("handover_relay", s.handover_relay);
    w.ms("handover_rest", s.handover_rest);
  }
  w.close('}');
}

void write(Writer& w, const RecentRequest& r, const SloClasses& classes, TimePoint now,
           bool details) {
  w.open('{');
  w.number("number", r.number);
  if (details) {
    w.text("id", r.id);
    w.text("tenant", r.tenant);
  }
  w.text("model", r.model);
  w.text("class", classes[r.class_index].name);
  w.text("result", name(r.result));
  w.text("finish", r.finish);
  w.number("ago_ms", to_ms(now - r.ended), 0);
  w.number("took_ms", to_ms(r.ended - r.received));
  w.number("prompt_tokens", r.prompt_tokens);
  w.number("cached_tokens", r.cached_tokens);
  w.number("output_tokens", r.output_tokens);
  w.ms("ttft_ms", r.measured.ttft);
  w.ms("tpot_ms", r.measured.tpot);
  w.text("prefill", r.prefill);
  w.text("decode", r.decode);
  w.number("kv_bytes", r.kv_bytes);
  w.number("retries", r.retries);
  write(w, r.stages);
  w.close('}');
}

// Of one class: for each step how many met, missed, were refused, failed, went away.
void write_class(Writer& w, const SloClass& slo_class, size_t index,
                 const std::vector<LiveHistory::Step>& steps) {
  w.open('{');
  w.text("name", slo_class.name);
  w.ms("ttft_ms", slo_class.target.ttft);
  w.ms("tpot_ms", slo_class.target.tpot);
  w.flag("best_effort", slo_class.best_effort);
  w.key("steps").open('[');
  for (const LiveHistory::Step& step : steps) {
    const auto of = [&](SloResult result) {
      return step.results[index][static_cast<size_t>(result)];
    };
    w.open('[');
    w.count(of(SloResult::kMet));
    w.count(of(SloResult::kMissedTtft) + of(SloResult::kMissedTpot) + of(SloResult::kMissedBoth));
    w.count(of(SloResult::kRefused));
    w.count(of(SloResult::kFailed));
    w.count(of(SloResult::kCancelled));
    w.close(']');
  }
  w.close(']').close('}');
}

void write_refusals(Writer& w, const LiveState& state) {
  w.key("refusals").open('[');
  for (size_t reason = 0; reason < state.reasons.size(); ++reason) {
    w.open('{');
    w.text("reason", state.reasons[reason]);
    w.key("steps").open('[');
    for (const LiveHistory::Step& step : state.steps) w.count(step.refused[reason]);
    w.close(']').close('}');
  }
  w.close(']');
}

void write_all(Writer& w, std::string_view name, const auto& values, auto&&... more) {
  w.key(name).open('[');
  for (const auto& value : values) write(w, value, more...);
  w.close(']');
}

}  // namespace

std::string state_json(const LiveState& state, const SloClasses& classes,
                       const std::deque<RecentRequest>& recent, TimePoint now, bool details) {
  std::string out;
  Writer w(out);
  w.open('{');
  w.text("version", state.version);
  w.flag("details", details);
  w.number("up_s", to_seconds(state.up), 1);
  w.number("in_flight", state.in_flight);
  w.number("queued", state.queued);
  w.number("prompt_tokens", state.prompt_tokens);
  w.number("output_tokens", state.output_tokens);
  write_all(w, "models", state.models);
  w.number("num_models", state.num_models);
  write_all(w, "pools", state.pools);
  write_all(w, "workers", state.workers, details);
  w.number("num_workers", state.num_workers);
  write_all(w, "pairs", state.pairs);
  w.number("num_pairs", state.num_pairs);
  w.number("step_s", to_seconds(LiveHistory::kStep), 0);
  w.number("step_age_s", to_seconds(state.age), 1);
  w.key("classes").open('[');
  for (size_t i = 0; i < classes.all.size(); ++i) write_class(w, classes.all[i], i, state.steps);
  w.close(']');
  write_refusals(w, state);
  write_all(w, "requests", recent, classes, now, details);
  w.close('}');
  return out;
}

}  // namespace baton::router
