#include "sim/plan/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>

namespace baton::sim {
namespace {

namespace json = boost::json;

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::kPrefill:
      return "prefill";
    case Phase::kDecode:
      return "decode";
    case Phase::kBoth:
      return "mixed";
  }
  return "";
}

std::string verified_words(const Verified& v) {
  const Estimate e = estimate(v.attained);
  return fmt::format("{:.1f}±{:.1f} %", 100 * e.mean, 100 * e.half_width);
}

std::string winner_line(const std::optional<Winner>& w, const char* kind, const Verified& v,
                        bool best) {
  if (!w) return fmt::format("  {:6} none meets the targets\n", kind);
  return fmt::format("{} {:6} {:>5} {:>8.4g} {:>10.4g} {:>8.4g} {:>9.4g} {:>12}  {}\n",
                     best ? '*' : ' ', kind, w->layout.gpus(), w->layout.cost(), w->goodput,
                     w->goodput / w->layout.gpus(), w->estimate, verified_words(v),
                     w->layout.to_string());
}

std::string alone_table(const PlanResult& plan) {
  std::string out = fmt::format("\n  {:24} {:>8} {:>6} {:>10} {:>8} {:>9}\n", "one worker alone",
                                "does", "chunk", "requests/s", "per GPU", "at most");
  for (const PhaseAlone& a : plan.alone) {
    out += fmt::format(
        "  {:24} {:>8} {:>6} {:>10.4g} {:>8.4g} {:>9.4g}{}{}\n", a.worker->to_string(),
        name_of(a.phase), a.chunk_tokens, a.goodput, a.goodput / a.worker->tensor_parallel, a.bound,
        a.within_node ? "  links within a node" : "", a.worker->derived() ? "  derived" : "");
  }
  return out;
}

bool any_derived(const Layout& layout) {
  for (const WorkerPool& pool : {layout.prefill, layout.decode, layout.mixed}) {
    if (pool.count > 0 && pool.worker->derived()) return true;
  }
  return false;
}

json::value json_of(const WorkerPool& pool) {
  if (pool.count == 0) return nullptr;
  return json::object{{"worker", pool.worker->to_string()},
                      {"device", pool.worker->device},
                      {"tensor_parallel", pool.worker->tensor_parallel},
                      {"derived", pool.worker->derived()},
                      {"count", pool.count}};
}

json::value json_of(const std::optional<Winner>& w, const Verified& v) {
  if (!w) return nullptr;
  json::array attained;
  for (const double share : v.attained) attained.emplace_back(share);
  return json::object{{"prefill", json_of(w->layout.prefill)},
                      {"decode", json_of(w->layout.decode)},
                      {"mixed", json_of(w->layout.mixed)},
                      {"chunk_tokens", w->layout.chunk_tokens},
                      {"units", w->layout.units},
                      {"within_node", w->layout.within_node},
                      {"gpus", w->layout.gpus()},
                      {"cost", w->layout.cost()},
                      {"goodput", w->goodput},
                      {"goodput_per_gpu", w->goodput / w->layout.gpus()},
                      {"estimate", w->estimate},
                      {"met_of_other_requests", attained}};
}

json::value finite(double value) { return std::isfinite(value) ? json::value(value) : nullptr; }

}  // namespace

std::string plan_table(const PlanHead& head, const PlanResult& plan) {
  const PlanOptions& o = *head.options;
  std::string out = fmt::format(
      "{}, {}: at most {} GPUs{}, {} arrivals, TTFT {:g} s and TPOT {:g} s met by {:g} %\n",
      head.hardware, head.trace, o.gpus,
      std::isfinite(o.budget) ? fmt::format(" and a cost of {:g}", o.budget) : "",
      o.trials.arrivals.to_string(), to_seconds(o.trials.slo.ttft), to_seconds(o.trials.slo.tpot),
      100 * o.trials.share);
  out += fmt::format("{:.2f} % of the requests no idle machine could serve in time\n",
                     100 * plan.impossible);
  if (!plan.alone.empty()) out += alone_table(plan);
  if (!plan.best()) return out + "\nno placement meets the targets\n";
  out += fmt::format("\n  {:6} {:>5} {:>8} {:>10} {:>8} {:>9} {:>12}\n", "", "GPUs", "cost",
                     "requests/s", "per GPU", "estimate", "others met");
  const bool split = &plan.best() == &plan.split;
  out += winner_line(plan.split, "split", plan.split_verified, split);
  out += winner_line(plan.mixed, "mixed", plan.mixed_verified, !split);
  if (plan.split && plan.mixed) {
    out += fmt::format("\nsplit serves {:.3g} times what the best mixed workers do\n",
                       plan.split->goodput / plan.mixed->goodput);
  }
  if (any_derived(plan.best()->layout)) {
    out += "the plan stands on profiles that are derived, not measured\n";
  }
  return out;
}

std::string plan_json(const PlanHead& head, const PlanResult& plan) {
  const PlanOptions& o = *head.options;
  json::array alone;
  for (const PhaseAlone& a : plan.alone) {
    alone.push_back(json::object{{"worker", a.worker->to_string()},
                                 {"phase", name_of(a.phase)},
                                 {"chunk_tokens", a.chunk_tokens},
                                 {"within_node", a.within_node},
                                 {"goodput", a.goodput},
                                 {"bound", finite(a.bound)}});
  }
  const json::object all{{"hardware", head.hardware},
                         {"trace", head.trace},
                         {"gpus", o.gpus},
                         {"budget", finite(o.budget)},
                         {"arrivals", o.trials.arrivals.to_string()},
                         {"slo_ttft_s", to_seconds(o.trials.slo.ttft)},
                         {"slo_tpot_s", to_seconds(o.trials.slo.tpot)},
                         {"share", o.trials.share},
                         {"seed", o.trials.seed},
                         {"impossible_share", plan.impossible},
                         {"split", json_of(plan.split, plan.split_verified)},
                         {"mixed", json_of(plan.mixed, plan.mixed_verified)},
                         {"alone", alone},
                         {"simulations", plan.simulations},
                         {"requests", plan.requests}};
  return json::serialize(all) + "\n";
}

}  // namespace baton::sim
