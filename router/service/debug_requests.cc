#include "router/service/debug_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "router/openai/json_writer.h"

namespace baton::router {
namespace {

double ms_between(TimePoint from, TimePoint to) {
  return std::max(0.0, to_seconds(to - from) * 1e3);
}

void append(std::string& out, const LegView& leg) {
  const auto to = std::back_inserter(out);
  fmt::format_to(to, R"({{"request":{},"generation":{},"stage":)", leg.id.value,
                 leg.generation.value);
  append_json_string(out, leg.stage);
  fmt::format_to(to, R"(,"first_choice":{},"choices":{},"prefill":)", leg.first_choice,
                 leg.choices);
  append_json_string_or_null(out, leg.prefill);
  out += R"(,"decode":)";
  append_json_string_or_null(out, leg.decode);
  out += '}';
}

void append(std::string& out, const RequestView& r, const SloClasses& classes, TimePoint now) {
  const auto to = std::back_inserter(out);
  out += R"({"id":)";
  append_json_string(out, r.trace);
  out += R"(,"tenant":)";
  append_json_string_or_null(out, r.tenant);
  out += R"(,"model":)";
  append_json_string(out, r.model);
  out += R"(,"class":)";
  append_json_string(out, classes[r.class_index].name);
  fmt::format_to(to, R"(,"age_ms":{:.1f},"deadline_ms":{:.1f},"prompt_tokens":{},)",
                 ms_between(r.received, now), ms_between(now, r.deadline), r.prompt_tokens);
  fmt::format_to(to, R"("cached_tokens":{},"output_tokens":{},"max_tokens":{},"choices":{},)",
                 r.cached_tokens ? fmt::to_string(*r.cached_tokens) : "null", r.output_tokens,
                 r.max_tokens, r.choices);
  fmt::format_to(to, R"("retries":{},"resumes":{},"preemptions":{},"parts":{},"served":[)",
                 r.retries, r.resumes, r.preemptions, r.num_legs);
  for (const LegView& leg : r.legs) {
    if (out.back() != '[') out += ',';
    append(out, leg);
  }
  out += "]}";
}

}  // namespace

std::string debug_requests(std::span<const RequestView> shown, size_t in_flight,
                           const SloClasses& classes, TimePoint now) {
  std::string out =
      fmt::format(R"({{"in_flight":{},"shown":{},"requests":[)", in_flight, shown.size());
  for (const RequestView& request : shown) {
    if (out.back() != '[') out += ',';
    append(out, request, classes, now);
  }
  out += "]}";
  return out;
}

}  // namespace baton::router
